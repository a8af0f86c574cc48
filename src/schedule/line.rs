//! `Debug` in one line, as a person would write it: what has to be given, and of the rest what is not the default.

use std::fmt;

/// `Name(field: value, …)`.
pub(crate) struct Line {
    name: &'static str,
    fields: Vec<String>,
}

impl Line {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, fields: Vec::new() }
    }

    /// A field that is always shown.
    pub(crate) fn field(self, name: &str, value: impl fmt::Debug) -> Self {
        self.text(name, &short(value))
    }

    /// A field whose value is shown as it is.
    pub(crate) fn text(mut self, name: &str, value: &str) -> Self {
        self.fields.push(format!("{name}: {value}"));
        self
    }

    /// A field that is shown if it differs from its default.
    pub(crate) fn unless<T: fmt::Debug>(self, name: &str, value: T, default: T) -> Self {
        if short(&value) == short(default) { self } else { self.field(name, value) }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name, self.fields.join(", "))
    }
}

/// Numbers without `.0`, and no `Some`.
pub(crate) fn short(value: impl fmt::Debug) -> String {
    let text = format!("{value:?}");
    let text = text.strip_prefix("Some(").and_then(|text| text.strip_suffix(')')).unwrap_or(&text);
    text.strip_suffix(".0").unwrap_or(text).to_owned()
}

/// `Debug` of a schedule: the arguments of its constructor, and those that differ from what that sets.
macro_rules! in_one_line {
    ($schedule:ident: $($given:ident),*) => {
        in_one_line!($schedule: $($given),*; () =>);
    };
    ($schedule:ident: $($given:ident),*; $new:expr => $($field:ident),*) => {
        impl std::fmt::Debug for $schedule {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let line = $crate::schedule::line::Line::new(stringify!($schedule));
                $(let line = line.field(stringify!($given), &self.$given);)*
                let _default = $new;
                $(let line = line.unless(stringify!($field), &self.$field, &_default.$field);)*
                std::fmt::Display::fmt(&line, f)
            }
        }
    };
}

pub(super) use in_one_line;
