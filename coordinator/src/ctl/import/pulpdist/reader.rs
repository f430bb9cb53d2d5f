//! Reads one JSON object field by field, and notes everything that is wrong with it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// The fields of one object.
pub(super) struct Reader<'a> {
    at: String,
    fields: Option<&'a Map<String, Value>>,
    known: BTreeSet<&'static str>,
    problems: &'a mut Vec<String>,
}

/// What a text has to be.
pub(super) type Pattern = fn(&str) -> bool;

impl<'a> Reader<'a> {
    /// The object at `at`.
    pub(super) fn new(value: &'a Value, at: String, problems: &'a mut Vec<String>) -> Self {
        let fields = value.as_object();
        if fields.is_none() {
            problems.push(format!("{at}: this has to be an object"));
        }
        Self { at, fields, known: BTreeSet::new(), problems }
    }

    fn field(&mut self, key: &'static str) -> Option<&'a Value> {
        self.known.insert(key);
        self.fields?.get(key)
    }

    fn wrong(&mut self, key: &str, message: &str) {
        self.problems.push(format!("{}.{key}: {message}", self.at));
    }

    /// A text that has to be there.
    pub(super) fn required(&mut self, key: &'static str, what: &str, fits: Pattern) -> String {
        match self.field(key) {
            None if self.fields.is_some() => {
                self.wrong(key, "this is missing");
                String::new()
            }
            Some(Value::Null) => {
                self.wrong(key, "this may not be null");
                String::new()
            }
            other => self.text_of(key, other, what, fits).unwrap_or_default(),
        }
    }

    /// A text, if it is there.
    pub(super) fn text(&mut self, key: &'static str, what: &str, fits: Pattern) -> Option<String> {
        let value = self.field(key);
        self.text_of(key, value, what, fits)
    }

    fn text_of(
        &mut self,
        key: &str,
        value: Option<&Value>,
        what: &str,
        fits: Pattern,
    ) -> Option<String> {
        match value {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if fits(text) => Some(text.clone()),
            Some(Value::String(text)) => {
                self.wrong(key, &format!("{text:?} is not {what}"));
                None
            }
            Some(_) => {
                self.wrong(key, "this has to be text");
                None
            }
        }
    }

    /// A list of texts; none is an empty one.
    pub(super) fn list(&mut self, key: &'static str, what: &str, fits: Pattern) -> Vec<String> {
        let mut texts = Vec::new();
        match self.field(key) {
            None => {}
            Some(Value::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    match item.as_str() {
                        Some(text) if fits(text) => texts.push(text.to_owned()),
                        Some(text) => {
                            self.wrong(
                                &format!("{key}[{index}]"),
                                &format!("{text:?} is not {what}"),
                            );
                        }
                        None => self.wrong(&format!("{key}[{index}]"), "this has to be text"),
                    }
                }
            }
            Some(_) => self.wrong(key, "this has to be a list of texts"),
        }
        texts
    }

    /// Texts by name; none is an empty map.
    pub(super) fn map(
        &mut self,
        key: &'static str,
        what: &str,
        fits: Pattern,
    ) -> BTreeMap<String, String> {
        let mut texts = BTreeMap::new();
        match self.field(key) {
            None => {}
            Some(Value::Object(items)) => {
                for (name, item) in items {
                    match item.as_str() {
                        Some(text) if fits(text) => {
                            texts.insert(name.clone(), text.to_owned());
                        }
                        Some(text) => {
                            self.wrong(
                                &format!("{key}.{name}"),
                                &format!("{text:?} is not {what}"),
                            );
                        }
                        None => self.wrong(&format!("{key}.{name}"), "this has to be text"),
                    }
                }
            }
            Some(_) => self.wrong(key, "this has to be an object of texts"),
        }
        texts
    }

    /// `true` or `false` of JSON and nothing else; `false` where it is missing.
    pub(super) fn flag(&mut self, key: &'static str) -> bool {
        match self.field(key) {
            None => false,
            Some(Value::Bool(flag)) => *flag,
            Some(_) => {
                self.wrong(key, "this has to be true or false");
                false
            }
        }
    }

    /// A whole number from 0 to `most`, if it is there and not null.
    pub(super) fn number(&mut self, key: &'static str, most: u64) -> Option<u64> {
        match self.field(key) {
            None | Some(Value::Null) => None,
            Some(value) => {
                let number = value.as_u64().filter(|number| *number <= most);
                if number.is_none() {
                    self.wrong(key, &format!("this has to be a whole number from 0 to {most}"));
                }
                number
            }
        }
    }

    /// An object inside of this one.
    pub(super) fn object(&mut self, key: &'static str) -> Reader<'_> {
        let at = format!("{}.{key}", self.at);
        match self.field(key) {
            Some(value) => Reader::new(value, at, self.problems),
            None => {
                if self.fields.is_some() {
                    self.problems.push(format!("{at}: this is missing"));
                }
                Reader { at, fields: None, known: BTreeSet::new(), problems: self.problems }
            }
        }
    }

    /// A field that is taken as it is.
    pub(super) fn value(&mut self, key: &'static str) -> Option<&'a Value> {
        self.field(key)
    }

    /// Refuses the keys that nobody asked for.
    pub(super) fn finish(self) {
        for key in self.fields.into_iter().flat_map(Map::keys) {
            if !self.known.contains(key.as_str()) {
                let known: Vec<_> = self.known.iter().copied().collect();
                let (at, known) = (&self.at, known.join(", "));
                self.problems.push(format!("{at}.{key}: unknown key; known are {known}"));
            }
        }
    }
}
