//! The description of the API.

use serde_json::{Value, json};

/// The whole document.
pub(super) fn document() -> Value {
    json!({ "openapi": "3.1.0" })
}
