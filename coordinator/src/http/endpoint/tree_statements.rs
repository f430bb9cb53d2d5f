//! `POST /v1/trees/{tree}/statements` ← `Envelope` of a `Statement` → `Accepted`; role publisher, for its
//! own trees, signed with its registered key. Problem
//! `parent-mismatch` when it does not follow the current one.

use axum::extract::State;
use protocol::{dsse::Envelope, name::TreeName, v1::publisher::Accepted};

use crate::http::{
    Rules,
    auth::Publisher,
    error::Error,
    extract::{Json, Path},
};

pub(in crate::http) async fn post(
    State(api): Rules,
    Publisher(caller): Publisher,
    Path(tree): Path<TreeName>,
    Json(envelope): Json<Envelope, { 64 << 10 }>,
) -> Result<axum::Json<Accepted>, Error> {
    Ok(axum::Json(api.app.announce_statement(&caller, &tree, &envelope).await?))
}
