//! `GET /v1/runs/{id}` → `RunStatus`; roles admin and viewer; operators of their site.

use axum::{Json, extract::State};
use protocol::v1::history::RunStatus;
use uuid::Uuid;

use crate::http::{Rules, auth::ScopedReader, error::Error, extract::Path};

pub(in crate::http) async fn get(
    State(api): Rules,
    ScopedReader(scope): ScopedReader,
    Path(id): Path<Uuid>,
) -> Result<Json<RunStatus>, Error> {
    Ok(Json(api.app.run(id, &scope).await?))
}
