//! `POST /v1/trees/{tree}/secret` → `ApplyResult`; role admin. Draws the keys of a private tree from another secret.

use axum::{Json, extract::State};
use protocol::{name::TreeName, v1::definitions::ApplyResult};

use crate::http::{Rules, auth::Admin, error::Error, extract::Path};

pub(in crate::http) async fn post(
    State(api): Rules,
    Admin(caller): Admin,
    Path(tree): Path<TreeName>,
) -> Result<Json<ApplyResult>, Error> {
    Ok(Json(api.app.rotate_tree_secret(&caller, &tree).await?))
}
