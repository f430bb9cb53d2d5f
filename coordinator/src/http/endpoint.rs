//! One file for each endpoint, named by its path. The header is the contract: method, path, who
//! may, what goes in and what comes out.

pub(super) mod agent_leases;
pub(super) mod agent_orders;
pub(super) mod agent_runs;
pub(super) mod assignment_effective;
pub(super) mod assignment_log;
pub(super) mod assignment_verb;
pub(super) mod audit;
pub(super) mod crl;
pub(super) mod definition;
pub(super) mod definitions;
pub(super) mod enroll;
pub(super) mod events;
pub(super) mod generations;
pub(super) mod health;
pub(super) mod identities;
pub(super) mod identity_revoke;
pub(super) mod invites;
pub(super) mod metrics;
pub(super) mod openapi;
pub(super) mod publisher_orders;
pub(super) mod publisher_presence;
pub(super) mod renew;
pub(super) mod roots;
pub(super) mod run;
pub(super) mod runs;
pub(super) mod status;
pub(super) mod tree_decision;
pub(super) mod tree_history;
pub(super) mod tree_holds;
pub(super) mod tree_offers;
pub(super) mod tree_publish;
pub(super) mod tree_statements;
pub(super) mod whoami;
