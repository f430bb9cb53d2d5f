//! `GET /v1/assignments/{name}/effective` → `Effective`; roles admin and viewer;
//! operators of their site.

use axum::{Json, extract::State};
use protocol::{spec::AssignmentName, v1::definitions::Effective};

use crate::http::{Rules, auth::ScopedReader, error::Error, extract::Path};

pub(in crate::http) async fn get(
    State(api): Rules,
    ScopedReader(scope): ScopedReader,
    Path(name): Path<AssignmentName>,
) -> Result<Json<Effective>, Error> {
    Ok(Json(api.app.describe(&name, &scope)?))
}
