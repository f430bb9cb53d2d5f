//! `GET /v1/openapi.json` → the description of this API, OpenAPI 3.1; every role.

use axum::Json;
use serde_json::Value;

use crate::http::{auth::Anyone, openapi};

pub(in crate::http) async fn get(_: Anyone) -> Json<Value> {
    Json(openapi::document())
}
