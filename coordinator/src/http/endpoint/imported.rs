//! `GET /v1/imported/{system}` → `Imported`: the document of another system that definitions were made
//! of last; roles admin and viewer.

use axum::{Json, extract::State};
use protocol::v1::definitions::{Imported, System};

use crate::http::{Rules, auth::Reader, error::Error, extract::Path};

pub(in crate::http) async fn get(
    State(api): Rules,
    _: Reader,
    Path(system): Path<System>,
) -> Result<Json<Imported>, Error> {
    Ok(Json(api.app.imported(system).await?))
}
