//! The JSON schema of all configurations. The functions of a registry run without a document, and the keys that they ask for are the schema.

use serde_json::{Map, Value as Json, json};

use super::registry::Registry;
use super::schedules::COMBINATORS;
use super::settings::Settings;
use super::shape::Field;
use crate::Sgd;
use crate::error::Result;
use crate::optimizer::OptimizerExt;
use crate::params::Scalar;
use crate::schedule::Schedule;
use crate::step::Optimizer;

impl<A: Scalar> Registry<A> {
    /// The JSON schema (draft 2020-12) of the configurations that can be built with the names of this registry. Editors complete and check TOML and JSON
    /// with it.
    ///
    /// Ranges of numbers are not part of it.
    ///
    /// # Errors
    /// Those of functions that have been registered.
    pub fn schema(&self) -> Result<String> {
        let mut optimizers = Vec::new();
        for (name, make) in &self.optimizers {
            let (fields, open) = asked(|settings| make(settings).map(drop))?;
            optimizers.push(table(&fields, open, &[("name", json!({"const": name}))], &[]));
        }
        let combinators = combinators()?;
        let mut schedules = Vec::new();
        for (name, make) in &self.schedules {
            let (fields, open) = asked(|settings| make(settings).map(drop))?;
            let others: Vec<_> =
                combinators.keys().filter(|key| fields.iter().all(|field| field.key != **key)).collect();
            schedules.push(table(&fields, open, &[("schedule", json!({"const": name}))], &others));
        }
        let mut adaptors = Map::new();
        for (name, make) in &self.adaptors {
            let inner = || -> Box<dyn Optimizer<A>> { Sgd::new(0.0).boxed() };
            let (fields, open) = asked(|settings| make(inner(), settings).map(drop))?;
            let mut forms = forms(&fields, open);
            forms.push(json!({"const": false})); // it is left out
            adaptors.insert(name.clone(), json!({"anyOf": forms}));
        }
        let chain = json!({"optimizer": {"$ref": "#/$defs/optimizer"}, "then": {"$ref": "#/$defs/then"}});
        let mut route = chain.clone();
        route["pattern"] = json!({"$ref": "#/$defs/pattern"});
        let route = json!({"type": "object", "properties": route, "required": ["optimizer", "pattern"],
            "additionalProperties": false});
        adaptors.insert("route".to_owned(), route);
        let list = json!({"type": "array", "prefixItems": [{"$ref": "#/$defs/hyper"}], "items": {"$ref": "#/$defs/combinator"},
            "minItems": 1});
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "An optimizer of gradus",
            "type": "object",
            "properties": chain,
            "required": ["optimizer"],
            "additionalProperties": false,
            "$defs": {
                "number": {"anyOf": [{"type": "number"}, {"enum": ["inf", "-inf"]}]},
                "pattern": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
                "hyper": {"anyOf": [{"$ref": "#/$defs/number"}, {"$ref": "#/$defs/schedule"}, list]},
                "schedule": {"oneOf": schedules},
                "combinators": combinators,
                "combinator": one_of(combinators.keys().map(|key| (key.clone(), reference(key)))),
                "optimizer": {"oneOf": optimizers},
                "adaptor": one_of(adaptors),
                "then": {"type": "array", "items": {"$ref": "#/$defs/adaptor"}},
            },
        });
        Ok(format!("{schema:#}\n"))
    }
}

fn combinators() -> Result<Map<String, Json>> {
    let mut all = Map::new();
    for (name, combine) in COMBINATORS {
        let inner: Box<dyn Schedule> = Box::new(1.0);
        let (fields, open) = asked(|settings| combine(inner, settings).map(drop))?;
        all.insert((*name).to_owned(), json!({"anyOf": forms(&fields, open)}));
    }
    Ok(all)
}

fn reference(combinator: &str) -> Json {
    json!({"$ref": format!("#/$defs/combinators/{combinator}")})
}

/// What a function asks for, and whether it takes any other key.
fn asked(make: impl FnOnce(&mut Settings<'_>) -> Result<()>) -> Result<(Vec<Field>, bool)> {
    let mut settings = Settings::schema();
    make(&mut settings)?;
    Ok(settings.into_fields())
}

/// A table of one of these keys.
fn one_of(keys: impl IntoIterator<Item = (String, Json)>) -> Json {
    let keys: Map<_, _> = keys.into_iter().collect();
    json!({"type": "object", "properties": keys, "additionalProperties": false, "minProperties": 1, "maxProperties": 1})
}

/// A table of these fields, more that have to be there, and combinators that may.
fn table(fields: &[Field], open: bool, more: &[(&str, Json)], others: &[&String]) -> Json {
    let mut properties: Map<_, _> = fields.iter().map(|field| (field.key.clone(), field.shape.clone())).collect();
    properties.extend(more.iter().map(|(key, shape)| ((*key).to_owned(), shape.clone())));
    properties.extend(others.iter().map(|key| ((*key).clone(), reference(key))));
    let required = fields.iter().filter(|field| field.required).map(|field| field.key.as_str());
    let required: Vec<_> = more.iter().map(|(key, _)| *key).chain(required).collect();
    let additional = if open { json!({"$ref": "#/$defs/hyper"}) } else { json!(false) };
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": additional})
}

/// A table, or the value of its first field alone; `true` where nothing has to be there.
fn forms(fields: &[Field], open: bool) -> Vec<Json> {
    let mut forms = vec![table(fields, open, &[], &[])];
    if let Some((first, rest)) = fields.split_first()
        && rest.iter().all(|field| !field.required)
    {
        forms.push(first.shape.clone());
    }
    if fields.iter().all(|field| !field.required) {
        forms.push(json!({"const": true}));
    }
    forms
}
