//! Where in a module a walk is.

/// The names from the root to where the walk is.
#[derive(Debug, Default)]
pub(crate) struct Way(Vec<String>);

impl Way {
    pub(crate) fn enter(&mut self, name: &str) {
        self.0.push(name.into());
    }

    pub(crate) fn leave(&mut self) {
        self.0.pop();
    }

    /// The dotted path.
    pub(crate) fn path(&self) -> String {
        self.0.join(".")
    }
}
