//! `GET /v1/definitions/{kind}/{name}` → `Definition`; roles admin and viewer;
//! operators what concerns their site.
//!
//! `DELETE /v1/definitions/{kind}/{name}` → `ApplyResult`; role admin. Refused while others refer to it.

use axum::{Json, extract::State};
use protocol::v1::definitions::{ApplyResult, Definition, Kind};

use crate::http::{
    Rules,
    auth::{Admin, ScopedReader},
    error::Error,
    extract::Path,
};

pub(in crate::http) async fn get(
    State(api): Rules,
    ScopedReader(scope): ScopedReader,
    Path((kind, name)): Path<(Kind, String)>,
) -> Result<Json<Definition>, Error> {
    Ok(Json(api.app.definition(kind, &name, &scope)?))
}

pub(in crate::http) async fn delete(
    State(api): Rules,
    Admin(caller): Admin,
    Path((kind, name)): Path<(Kind, String)>,
) -> Result<Json<ApplyResult>, Error> {
    Ok(Json(api.app.delete(&caller, kind, &name).await?))
}
