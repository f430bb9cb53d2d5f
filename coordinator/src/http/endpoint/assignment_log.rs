//! `GET /v1/assignments/{name}/log?of=` → `RunStatus` with its log; roles admin and viewer. `of` is
//! `latest` (without it), `previous`, `success` or `change`.

use axum::{Json, extract::State};
use protocol::{
    spec::AssignmentName,
    v1::history::{LogOf, RunStatus},
};
use serde::Deserialize;

use crate::http::{
    Rules,
    auth::Reader,
    error::Error,
    extract::{Path, Query},
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Wanted {
    #[serde(default)]
    of: LogOf,
}

pub(in crate::http) async fn get(
    State(api): Rules,
    _: Reader,
    Path(name): Path<AssignmentName>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<RunStatus>, Error> {
    Ok(Json(api.app.run_log(&name, wanted.of).await?))
}
