//! The description of the API: a table of the endpoints, with the schemas of the wire types.
//!
//! The document says 3.1, which every generator reads; its schemas are plain JSON Schema.

#[cfg(test)]
mod reference;
mod table;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

/// One endpoint.
struct Endpoint {
    method: &'static str,
    path: &'static str,
    roles: &'static str,
    summary: &'static str,
    query: &'static [(&'static str, &'static str)],
    request: Option<String>,
    answer: Answer,
    schemas: Vec<(String, RefOr<Schema>)>,
}

/// What an endpoint answers when it does not refuse.
enum Answer {
    Nothing,
    Text(&'static str),
    Json(String),
}

impl Endpoint {
    fn new(
        method: &'static str,
        path: &'static str,
        roles: &'static str,
        summary: &'static str,
    ) -> Self {
        let (query, request, answer): (&[_], _, _) = (&[], None, Answer::Nothing);
        Self { method, path, roles, summary, query, request, answer, schemas: Vec::new() }
    }

    fn query(mut self, query: &'static [(&'static str, &'static str)]) -> Self {
        self.query = query;
        self
    }

    fn takes<T: ToSchema>(mut self) -> Self {
        self.request = Some(self.name::<T>());
        self
    }

    fn answers<T: ToSchema>(mut self) -> Self {
        self.answer = Answer::Json(self.name::<T>());
        self
    }

    /// Answers a page of `T`s.
    fn pages<T: ToSchema>(mut self) -> Self {
        let item = self.name::<T>();
        let page = format!("PageOf{item}");
        let schema = json!({
            "type": "object",
            "required": ["items"],
            "properties": {
                "items": { "type": "array", "items": reference(&item) },
                "next": {
                    "type": "string",
                    "description": "Ask with ?cursor= this for the next page; absent on the last."
                }
            }
        });
        if let Ok(schema) = serde_json::from_value(schema) {
            self.schemas.push((page.clone(), RefOr::T(schema)));
        }
        self.answer = Answer::Json(page);
        self
    }

    fn text(mut self, media_type: &'static str) -> Self {
        self.answer = Answer::Text(media_type);
        self
    }

    /// Also describes what is referred to by every endpoint.
    fn with<T: ToSchema>(mut self) -> Self {
        self.name::<T>();
        self
    }

    fn name<T: ToSchema>(&mut self) -> String {
        let name = T::name().into_owned();
        self.schemas.push((name.clone(), <T as PartialSchema>::schema()));
        T::schemas(&mut self.schemas);
        name
    }

    fn operation(&self) -> Value {
        let mut operation = json!({
            "summary": self.summary,
            "description": format!("Who may: {}.", self.roles),
            "operationId": self.operation_id(),
            "parameters": self.parameters(),
            "responses": self.responses(),
        });
        if let Some(request) = &self.request {
            operation["requestBody"] = json!({ "required": true, "content": content(request) });
        }
        if self.is_open() {
            operation["security"] = json!([]);
        }
        operation
    }

    /// Whether it is answered without a client certificate.
    fn is_open(&self) -> bool {
        ["/enroll", "/renew-after-expiry"].contains(&self.path) || self.roles == table::NOBODY
    }

    fn operation_id(&self) -> String {
        let words = self.path.split(['/', '{', '}', '.']).filter(|word| !word.is_empty());
        let words = words.filter(|word| *word != "v1");
        [self.method].into_iter().chain(words).collect::<Vec<_>>().join("-")
    }

    fn parameters(&self) -> Value {
        let in_path = self.path.split(['{', '}']).skip(1).step_by(2).map(|name| {
            json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } })
        });
        let in_query = self.query.iter().map(|(name, what)| {
            json!({ "name": name, "in": "query", "description": what, "schema": { "type": "string" } })
        });
        in_path.chain(in_query).collect()
    }

    fn responses(&self) -> Value {
        let mut responses = json!({
            "default": {
                "description": "A refusal",
                "content": { "application/problem+json": { "schema": reference("Problem") } }
            }
        });
        let (status, response) = match &self.answer {
            Answer::Nothing => ("204", json!({ "description": "Done" })),
            Answer::Text(media_type) => {
                let content = json!({ *media_type: { "schema": { "type": "string" } } });
                ("200", json!({ "description": "The answer", "content": content }))
            }
            Answer::Json(name) => {
                ("200", json!({ "description": "The answer", "content": content(name) }))
            }
        };
        responses[status] = response;
        if self.query.iter().any(|(name, _)| *name == "wait") {
            responses["304"] = json!({ "description": "Nothing newer came within the wait" });
        }
        responses
    }
}

/// The whole document.
pub(super) fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    let mut schemas: BTreeMap<String, Value> = BTreeMap::new();
    for endpoint in table::endpoints() {
        let path = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        path[endpoint.method] = endpoint.operation();
        for (name, schema) in endpoint.schemas {
            schemas.insert(name, serde_json::to_value(schema).unwrap_or_default());
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Mirrornet coordinator",
            "version": "1",
            "description": "JSON over mutual TLS. Errors are problem details (RFC 9457) with a stable type. Long polls ask with ?revision=N&wait=60s and end with 304 when nothing newer came. Lists page by cursor. /enroll is on the enroll port, where only the server shows a certificate.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" }
        },
        "security": [{ "mutual-tls": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "mutual-tls": { "type": "mutualTLS" } }
        }
    })
}

fn content(name: &str) -> Value {
    json!({ "application/json": { "schema": reference(name) } })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every path in the routers' source.
    fn routes() -> BTreeSet<String> {
        let source = include_str!("../http.rs").replace("format!(\"{assignment}", "format!(\"A");
        let found = source.split('"').skip(1).step_by(2);
        let found = found.map(|text| text.replace("A/", "/v1/assignments/{name}/"));
        let found = found.map(|text| text.replace("{{verb}}", "{verb}"));
        found.filter(|text| text.starts_with('/') && *text != "/v1/assignments/{name}").collect()
    }

    #[test]
    fn every_route_is_described_and_nothing_else_is() {
        let described: BTreeSet<_> = table::endpoints().iter().map(|e| e.path.to_owned()).collect();
        assert_eq!(described, routes());
    }

    #[test]
    fn no_two_types_share_a_name() {
        let mut schemas: BTreeMap<String, Value> = BTreeMap::new();
        for (name, schema) in table::endpoints().into_iter().flat_map(|e| e.schemas) {
            let schema = serde_json::to_value(schema).unwrap();
            if let Some(other) = schemas.insert(name.clone(), schema.clone()) {
                assert_eq!(other, schema, "{name}");
            }
        }
    }

    #[test]
    fn every_reference_leads_to_a_schema() {
        fn references(value: &Value, found: &mut BTreeSet<String>) {
            match value {
                Value::Object(map) => map.iter().for_each(|(key, value)| match value {
                    Value::String(text) if key == "$ref" => drop(found.insert(text.clone())),
                    value => references(value, found),
                }),
                Value::Array(items) => items.iter().for_each(|item| references(item, found)),
                _ => {}
            }
        }
        let document = document();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert!(found.len() > 50, "{found:?}");
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }
}
