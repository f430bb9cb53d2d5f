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
    parsed, parsed_option, row, rows, to_micros,
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
    /// Whether an admin has to approve the keys of whoever uses it.
    pub approve: bool,
    /// The admin who made it.
    pub made_by: String,
    /// When it ends.
    pub expires: Timestamp,
    /// When it was first asked with, where it wants approval.
    pub asked: Option<Timestamp>,
    /// Fingerprint of the request that it was asked with.
    pub asking: Option<String>,
    /// The admin who approved that.
    pub approved_by: Option<String>,
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
    bool,
    String,
    i64,
    Option<i64>,
    Option<String>,
    Option<String>,
    Option<i64>,
    Option<String>,
    Option<String>,
);

/// Selects whole invites.
macro_rules! select {
    ($which:literal) => {
        concat!(
            "SELECT id, verifier, role, name, site, trees, replaces, approve, made_by, expires,
                asked, asking, approved_by, consumed, request, answer FROM invites ",
            $which
        )
    };
}

impl Transaction {
    /// Stores a new invite.
    pub async fn add_invite(&mut self, invite: &StoredInvite) -> Result<(), Error> {
        execute!(
            self,
            "INSERT INTO invites (id, verifier, role, name, site, replaces, made_by, expires, trees,
                approve)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            invite.id.as_str(),
            invite.verifier.as_str(),
            invite.role.as_str(),
            invite.name.as_str(),
            invite.site.as_ref().map(SiteName::as_str),
            invite.replaces,
            invite.made_by.as_str(),
            to_micros(invite.expires),
            patterns_to_json(&invite.trees)?,
            invite.approve,
        )
        .map(drop)
    }

    /// The invite `id`, if there ever was one.
    pub async fn invite(&mut self, id: &str) -> Result<Option<StoredInvite>, Error> {
        row!(self, InviteRow, select!("WHERE id = $1"), id)?.map(invite).transpose()
    }

    /// The invites whose users wait for an admin, the longest wait first.
    pub async fn waiting_invites(&mut self) -> Result<Vec<StoredInvite>, Error> {
        let sql = select!(
            "WHERE asked IS NOT NULL AND approved_by IS NULL AND consumed IS NULL
             ORDER BY asked, id"
        );
        rows!(self, InviteRow, sql)?.into_iter().map(invite).collect()
    }

    /// Keeps with which keys an invite that wants approval was asked with first.
    pub async fn ask_with_invite(
        &mut self,
        id: &str,
        request: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        let sql = "UPDATE invites SET asked = $2, asking = $3 WHERE id = $1 AND asked IS NULL";
        execute!(self, sql, id, to_micros(now), request).map(drop)
    }

    /// Keeps that `admin` approved what the invite was asked with.
    pub async fn approve_invite(&mut self, id: &str, admin: &str) -> Result<(), Error> {
        let sql = "UPDATE invites SET approved_by = $2 WHERE id = $1 AND consumed IS NULL";
        execute!(self, sql, id, admin).map(drop)
    }

    /// Ends an invite with what it was asked with, without an answer.
    pub async fn reject_invite(&mut self, id: &str, now: Timestamp) -> Result<(), Error> {
        let sql = "UPDATE invites SET consumed = $2, request = asking
             WHERE id = $1 AND consumed IS NULL";
        execute!(self, sql, id, to_micros(now)).map(drop)
    }

    /// Ends every invite that could still be used: after a restore, some of them may have been.
    pub async fn end_open_invites(&mut self, now: Timestamp) -> Result<(), Error> {
        let sql = "UPDATE invites SET expires = $1, asked = NULL, asking = NULL, approved_by = NULL
             WHERE consumed IS NULL AND (expires > $1 OR asked IS NOT NULL)";
        execute!(self, sql, to_micros(now)).map(drop)
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
        approve,
        made_by,
        expires,
        asked,
        asking,
        approved_by,
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
        approve,
        made_by,
        expires: from_micros(expires)?,
        asked: from_micros_option(asked)?,
        asking,
        approved_by,
        consumed: from_micros_option(consumed)?,
        request,
        answer,
    })
}
