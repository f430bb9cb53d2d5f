//! `GET /v1/whoami` → `WhoAmI`; every role.

use axum::{Json, extract::State};
use protocol::v1::identities::WhoAmI;

use crate::http::{Rules, auth::Anyone};

pub(in crate::http) async fn get(State(api): Rules, Anyone(caller): Anyone) -> Json<WhoAmI> {
    Json(api.app.who_am_i(&caller))
}
