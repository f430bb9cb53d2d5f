//! Mandates: assignments as whoever holds a definitions key has signed them.
//!
//! - `POST /v1/mandates` ← [`NewMandates`] → 204 (role admin): keeps mandates and hands them to agents
//!
//! A network whose root names definitions keys is strict: its agents carry out an assignment only as
//! a mandate says, and never by an older one. The coordinator can then stop what was signed, and say
//! which generation is current; it can neither begin, change nor end an assignment.

use serde::{Deserialize, Serialize};

use super::agent::{AssignmentOrder, Origin, Stopped};
use crate::{
    dsse::Envelope,
    name::{IdentityName, NetworkName},
};

/// Most mandates in one request.
pub const MAX_MANDATES: usize = 10_000;

/// "This assignment is to be carried out so, and not otherwise."
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Mandate {
    /// Of which network.
    pub network: NetworkName,
    /// Grows with each that is signed for the assignment: the time of signing, in microseconds.
    pub number: u64,
    /// The only agent that may hold it, where the assignment names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<IdentityName>,
    /// The assignment has ended.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ended: bool,
    /// What is to be done, without what changes with every generation.
    pub order: AssignmentOrder,
}

/// Signed [`Mandate`]s that are to be kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewMandates {
    /// At most [`MAX_MANDATES`].
    pub mandates: Vec<Envelope>,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Mandate {
    /// The order that it makes of what the coordinator says: what is current is the coordinator's
    /// word, and so is that it is stopped; all else is the mandate's.
    pub fn order(&self, told: Option<&AssignmentOrder>) -> AssignmentOrder {
        let mut order = self.order.clone();
        match told {
            // It may be kept from us, but that does not end it.
            None => order.stopped = order.stopped.or(Some(Stopped::Disabled)),
            Some(told) => {
                order.stopped = order.stopped.or_else(|| told.stopped.clone());
                order.target.clone_from(&told.target);
                order.sync_requests = told.sync_requests;
                order.approved.clone_from(&told.approved);
                order.undelete.clone_from(&told.undelete);
                if let (Origin::Publisher(own), Origin::Publisher(theirs)) =
                    (&mut order.origin, &told.origin)
                {
                    own.address.clone_from(&theirs.address);
                }
            }
        }
        if order.stopped.is_some() {
            order.target = None;
        }
        order
    }
}
