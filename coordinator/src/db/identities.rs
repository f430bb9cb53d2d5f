//! Identities and their certificates.

use jiff::Timestamp;
use protocol::{
    key::VerifyingKey,
    name::{IdentityName, SiteName},
    role::Role,
    root::TreePattern,
    v1::publisher::Presence,
};

use super::{
    Error, Transaction, execute, from_json, from_micros, from_micros_option, parsed, parsed_option,
    row, rows, to_json, to_micros,
};

/// An identity, live or revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredIdentity {
    /// Its role.
    pub role: Role,
    /// Its name.
    pub name: IdentityName,
    /// Its site; agents and operators only.
    pub site: Option<SiteName>,
    /// Checks its statements or receipts.
    pub signing_key: VerifyingKey,
    /// Trees that it may sign for, all where none is named; publishers only.
    pub trees: Vec<TreePattern>,
    /// When it enrolled first.
    pub created: Timestamp,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
    /// Why it was revoked.
    pub reason: String,
    /// Where it is reached; publishers only.
    pub advertise: Option<String>,
    /// When it last asked for anything, to within a minute.
    pub last_seen: Option<Timestamp>,
}

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCertificate {
    /// Its serial number: lower-case hex without leading zeros.
    pub serial: String,
    /// Role of its holder.
    pub role: Role,
    /// Name of its holder.
    pub name: IdentityName,
    /// When it was issued.
    pub issued: Timestamp,
    /// When it ends.
    pub not_after: Timestamp,
    /// When a newer one took its place.
    pub superseded: Option<Timestamp>,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
    /// When it was first used.
    pub confirmed: Option<Timestamp>,
    /// Which root issued it, where that was noted.
    pub issuer: Option<String>,
    /// Which roots its holder was given with it, where that was noted.
    pub bundle: Option<String>,
}

type IdentityRow = (
    String,
    String,
    Option<String>,
    String,
    Option<String>,
    i64,
    Option<i64>,
    String,
    Option<String>,
    Option<i64>,
);
type CertificateRow = (
    String,
    String,
    String,
    i64,
    i64,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<String>,
    Option<String>,
);

impl Transaction {
    /// Every identity, the oldest first.
    pub async fn identities(&mut self) -> Result<Vec<StoredIdentity>, Error> {
        let sql =
            "SELECT role, name, site, signing_key, trees, created, revoked, reason, advertise,
                last_seen FROM identities ORDER BY created, role, name";
        rows!(self, IdentityRow, sql)?.into_iter().map(identity).collect()
    }

    /// One identity.
    pub async fn identity(
        &mut self,
        role: Role,
        name: &IdentityName,
    ) -> Result<Option<StoredIdentity>, Error> {
        let sql =
            "SELECT role, name, site, signing_key, trees, created, revoked, reason, advertise,
                last_seen FROM identities WHERE role = $1 AND name = $2";
        row!(self, IdentityRow, sql, role.as_str(), name.as_str())?.map(identity).transpose()
    }

    /// Stores an identity, taking the place of a revoked one of that name.
    pub async fn put_identity(&mut self, identity: &StoredIdentity) -> Result<(), Error> {
        execute!(
            self,
            "INSERT INTO identities (role, name, site, signing_key, created, revoked, reason, trees)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (role, name) DO UPDATE SET site = excluded.site,
                signing_key = excluded.signing_key, created = excluded.created,
                revoked = excluded.revoked, reason = excluded.reason, trees = excluded.trees,
                advertise = NULL,
                version = NULL, rsync = NULL, last_seen = NULL",
            identity.role.as_str(),
            identity.name.as_str(),
            identity.site.as_ref().map(SiteName::as_str),
            identity.signing_key.to_string(),
            to_micros(identity.created),
            identity.revoked.map(to_micros),
            identity.reason.as_str(),
            patterns_to_json(&identity.trees)?,
        )
        .map(drop)
    }

    /// Revokes an identity and all of its certificates.
    pub async fn revoke_identity(
        &mut self,
        role: Role,
        name: &IdentityName,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        execute!(
            self,
            "UPDATE identities SET revoked = $3, reason = $4
             WHERE role = $1 AND name = $2 AND revoked IS NULL",
            role.as_str(),
            name.as_str(),
            to_micros(now),
            reason,
        )?;
        execute!(
            self,
            "UPDATE certificates SET revoked = $3
             WHERE role = $1 AND name = $2 AND revoked IS NULL",
            role.as_str(),
            name.as_str(),
            to_micros(now),
        )
        .map(drop)
    }

    /// Keeps what a publisher, or an agent that relays, says about itself.
    pub async fn set_presence(
        &mut self,
        role: Role,
        name: &IdentityName,
        presence: &Presence,
    ) -> Result<(), Error> {
        execute!(
            self,
            "UPDATE identities SET advertise = $3, version = $4, rsync = $5
             WHERE role = $1 AND name = $2",
            role.as_str(),
            name.as_str(),
            presence.advertise.as_str(),
            presence.version.as_str(),
            presence.rsync.as_deref(),
        )
        .map(drop)
    }

    /// Keeps when an identity was last heard of.
    pub async fn set_last_seen(
        &mut self,
        role: Role,
        name: &IdentityName,
        at: Timestamp,
    ) -> Result<(), Error> {
        execute!(
            self,
            "UPDATE identities SET last_seen = $3 WHERE role = $1 AND name = $2",
            role.as_str(),
            name.as_str(),
            to_micros(at),
        )
        .map(drop)
    }

    /// Every certificate that ends after `now`, the oldest first.
    pub async fn certificates(&mut self, now: Timestamp) -> Result<Vec<StoredCertificate>, Error> {
        let sql = "SELECT serial, role, name, issued, not_after, superseded, revoked, confirmed,
                issuer, bundle FROM certificates WHERE not_after > $1 ORDER BY issued, serial";
        rows!(self, CertificateRow, sql, to_micros(now))?.into_iter().map(certificate).collect()
    }

    /// The certificate with that serial number, also when it has ended.
    pub async fn certificate(&mut self, serial: &str) -> Result<Option<StoredCertificate>, Error> {
        let sql = "SELECT serial, role, name, issued, not_after, superseded, revoked, confirmed,
                issuer, bundle FROM certificates WHERE serial = $1";
        row!(self, CertificateRow, sql, serial)?.map(certificate).transpose()
    }

    /// When the newest certificate of that identity that was ever used was issued.
    pub async fn newest_confirmed(
        &mut self,
        role: Role,
        name: &IdentityName,
    ) -> Result<Option<Timestamp>, Error> {
        let sql = "SELECT MAX(issued) FROM certificates
             WHERE role = $1 AND name = $2 AND confirmed IS NOT NULL";
        let found = row!(self, (Option<i64>,), sql, role.as_str(), name.as_str())?;
        from_micros_option(found.and_then(|(issued,)| issued))
    }

    /// Stores a new certificate, which takes the place of its holder's others. `request` names
    /// what was asked for, and `answer` is what was answered.
    pub async fn add_certificate(
        &mut self,
        certificate: &StoredCertificate,
        request: &str,
        answer: &str,
    ) -> Result<(), Error> {
        execute!(
            self,
            "UPDATE certificates SET superseded = $3
             WHERE role = $1 AND name = $2 AND superseded IS NULL",
            certificate.role.as_str(),
            certificate.name.as_str(),
            to_micros(certificate.issued),
        )?;
        execute!(
            self,
            "INSERT INTO certificates (serial, role, name, issued, not_after, request, answer,
                issuer, bundle)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            certificate.serial.as_str(),
            certificate.role.as_str(),
            certificate.name.as_str(),
            to_micros(certificate.issued),
            to_micros(certificate.not_after),
            request,
            answer,
            certificate.issuer.as_deref(),
            certificate.bundle.as_deref(),
        )
        .map(drop)
    }

    /// Notes that a certificate was used. Returns whether that was the first time.
    pub async fn confirm_certificate(
        &mut self,
        serial: &str,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let sql = "UPDATE certificates SET confirmed = $2 WHERE serial = $1 AND confirmed IS NULL";
        Ok(execute!(self, sql, serial, to_micros(now))? == 1)
    }

    /// What was answered to the same request of that identity before.
    pub async fn renewal_answer(
        &mut self,
        role: Role,
        name: &IdentityName,
        request: &str,
    ) -> Result<Option<String>, Error> {
        let sql = "SELECT answer FROM certificates
             WHERE role = $1 AND name = $2 AND request = $3 AND revoked IS NULL";
        let found = row!(self, (String,), sql, role.as_str(), name.as_str(), request)?;
        Ok(found.map(|(answer,)| answer))
    }
}

/// None where there are none: all trees.
pub(super) fn patterns_to_json(trees: &[TreePattern]) -> Result<Option<String>, Error> {
    if trees.is_empty() { Ok(None) } else { to_json("tree patterns", &trees).map(Some) }
}

pub(super) fn patterns_from_json(text: Option<&str>) -> Result<Vec<TreePattern>, Error> {
    text.map_or(Ok(vec![]), |text| from_json("tree patterns", text))
}

fn identity(row: IdentityRow) -> Result<StoredIdentity, Error> {
    let (role, name, site, signing_key, trees, created, revoked, reason, advertise, last_seen) =
        row;
    Ok(StoredIdentity {
        role: parsed("role", &role)?,
        name: parsed("identity name", &name)?,
        site: parsed_option("site name", site.as_deref())?,
        signing_key: parsed("signing key", &signing_key)?,
        trees: patterns_from_json(trees.as_deref())?,
        created: from_micros(created)?,
        revoked: from_micros_option(revoked)?,
        reason,
        advertise,
        last_seen: from_micros_option(last_seen)?,
    })
}

fn certificate(row: CertificateRow) -> Result<StoredCertificate, Error> {
    let (serial, role, name, issued, not_after, superseded, revoked, confirmed, issuer, bundle) =
        row;
    Ok(StoredCertificate {
        serial,
        role: parsed("role", &role)?,
        name: parsed("identity name", &name)?,
        issued: from_micros(issued)?,
        not_after: from_micros(not_after)?,
        superseded: from_micros_option(superseded)?,
        revoked: from_micros_option(revoked)?,
        confirmed: from_micros_option(confirmed)?,
        issuer,
        bundle,
    })
}
