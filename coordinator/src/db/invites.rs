//! Invites: each is used once.

use jiff::Timestamp;
use protocol::{
    name::{IdentityName, SiteName},
    role::Role,
    root::TreePattern,
};

use super::{
    Error, Transaction, execute, from_micros, from_micros_option,
    identities::{patterns_from_json, patterns_to_json},
    parsed, parsed_option, row, to_micros,
};

/// An invite, used or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredInvite {
    /// Which one.
    pub id: String,
    /// Checks a proof of its secret; makes none.
    pub verifier: String,
    /// Role that it gives.
    pub role: Role,
    /// Name that it gives.
    pub name: IdentityName,
    /// Site that it gives; agents only.
    pub site: Option<SiteName>,
    /// Trees that it lets a publisher sign for; all where none is named.
    pub trees: Vec<TreePattern>,
    /// Whether a live identity of that name is replaced.
    pub replaces: bool,
    /// The admin who made it.
    pub made_by: String,
    /// When it ends.
    pub expires: Timestamp,
    /// When it was used.
    pub consumed: Option<Timestamp>,
    /// Fingerprint of the request that used it.
    pub request: Option<String>,
    /// What was answered to that.
    pub answer: Option<String>,
}

type InviteRow = (
    String,
    String,
    String,
    String,
    Option<String>,
    Option<String>,
    bool,
    String,
    i64,
    Option<i64>,
    Option<String>,
    Option<String>,
);

impl Transaction {
    /// Stores a new invite.
    pub async fn add_invite(&mut self, invite: &StoredInvite) -> Result<(), Error> {
        execute!(
            self,
            "INSERT INTO invites (id, verifier, role, name, site, replaces, made_by, expires, trees)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            invite.id.as_str(),
            invite.verifier.as_str(),
            invite.role.as_str(),
            invite.name.as_str(),
            invite.site.as_ref().map(SiteName::as_str),
            invite.replaces,
            invite.made_by.as_str(),
            to_micros(invite.expires),
            patterns_to_json(&invite.trees)?,
        )
        .map(drop)
    }

    /// The invite `id`, if there ever was one.
    pub async fn invite(&mut self, id: &str) -> Result<Option<StoredInvite>, Error> {
        let sql =
            "SELECT id, verifier, role, name, site, trees, replaces, made_by, expires, consumed,
                request, answer FROM invites WHERE id = $1";
        row!(self, InviteRow, sql, id)?.map(invite).transpose()
    }

    /// Marks the invite as used. Returns whether it was unused before.
    pub async fn consume_invite(
        &mut self,
        id: &str,
        request: &str,
        answer: &str,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let changed = execute!(
            self,
            "UPDATE invites SET consumed = $2, request = $3, answer = $4
             WHERE id = $1 AND consumed IS NULL",
            id,
            to_micros(now),
            request,
            answer,
        )?;
        Ok(changed == 1)
    }
}

fn invite(row: InviteRow) -> Result<StoredInvite, Error> {
    let (
        id,
        verifier,
        role,
        name,
        site,
        trees,
        replaces,
        made_by,
        expires,
        consumed,
        request,
        answer,
    ) = row;
    Ok(StoredInvite {
        id,
        verifier,
        role: parsed("role", &role)?,
        name: parsed("identity name", &name)?,
        site: parsed_option("site name", site.as_deref())?,
        trees: patterns_from_json(trees.as_deref())?,
        replaces,
        made_by,
        expires: from_micros(expires)?,
        consumed: from_micros_option(consumed)?,
        request,
        answer,
    })
}
