//! `POST /v1/trees/{tree}/publish` → `ApplyResult`; role admin. Asks the publisher for a scan now.

use axum::{Json, extract::State};
use protocol::{name::TreeName, v1::definitions::ApplyResult};

use crate::http::{Rules, auth::Admin, error::Error, extract::Path};

pub(in crate::http) async fn post(
    State(api): Rules,
    Admin(caller): Admin,
    Path(tree): Path<TreeName>,
) -> Result<Json<ApplyResult>, Error> {
    Ok(Json(api.app.request_publish(&caller, &tree).await?))
}
