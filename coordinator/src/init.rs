//! Making a network: its authority, its keys, its database and its first admin.
//!
//! The configuration file is written last and is the mark of completeness: a directory without it
//! is not a coordinator's, whatever else is in it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use certs::{
    authority::{self, Authority, OwnAuthority},
    enrollment::RequestedKeys,
    identity::{
        Identity,
        directory::{self, Membership, Pending},
    },
    keyfile, root, signing,
    signing::SigningKey,
};
use jiff::Timestamp;
use protocol::{
    dsse::Envelope,
    generation::RootNumber,
    name::{IdentityName, NetworkName},
    role::Role,
    root::Root,
    v1::enroll::Certificates,
};

use crate::{
    config::{Config, FILE},
    db::{self, Counter, Database, StoredCertificate, StoredIdentity, Topic},
};

/// Directory of the authority, below the data directory.
pub(crate) const AUTHORITY: &str = "ca";
/// File of the key that heads are signed with.
pub(crate) const HEAD_KEY: &str = "head.key";
/// File of the key that root documents are signed with, while it is kept here.
pub(crate) const ROOT_KEY: &str = "root.key";
/// Directory of the first admin's identity.
pub(crate) const ADMIN: &str = "admin";

/// What a new network is.
#[derive(Clone)]
pub struct InitOptions {
    /// The configuration that `serve` will find in the data directory.
    pub config: Config,
    /// The network's name.
    pub network: NetworkName,
    /// The first admin's name.
    pub admin: IdentityName,
    /// Certificate and key, PEM, of an authority of the operator's own; one is made where it is absent.
    pub authority: Option<(String, String)>,
}

/// Makes a network in `options.config.data`, which must not be there or be empty.
pub async fn init(options: &InitOptions, now: Timestamp) -> Result<(), Error> {
    let data = &options.config.data;
    check_hosts(&options.config.hostnames)?;
    prepare(data)?;
    let dir = data.join(AUTHORITY);
    let authority = match &options.authority {
        None => Authority::create(&dir, &options.network, now)?,
        Some((certificate, key)) => {
            let own = OwnAuthority { certificate, key };
            Authority::create_below(&dir, &own, &options.network, now)?
        }
    };
    let head_key = SigningKey::generate()?;
    head_key.save(&data.join(HEAD_KEY))?;
    let root_key = SigningKey::generate()?;
    root_key.save(&data.join(ROOT_KEY))?;
    let root = first_root(&authority, &head_key, &root_key, now)?;
    let database = match &options.config.database.url {
        Some(url) => Database::connect_postgres(url).await?,
        None => Database::open_sqlite(data).await?,
    };
    let made = first_admin(options, &authority, &root, &database, now).await;
    database.close().await;
    made?;
    let text = configuration(&options.config);
    keyfile::create(&data.join(FILE), text.as_bytes())?;
    Ok(keyfile::sync_dir(data)?)
}

/// Why no network was made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is one already.
    #[error("{data} holds a network already and is left as it is; start it with: coordinator serve --data {data}", data = data.display())]
    Exists {
        /// The data directory.
        data: PathBuf,
    },
    /// The directory is in use for something else, or an earlier `init` was interrupted.
    #[error("{data} is not empty ({found} is in it) and holds no complete network; if an earlier `coordinator init` was interrupted, remove the directory and try again, else choose another", data = data.display())]
    NotEmpty {
        /// The data directory.
        data: PathBuf,
        /// Something that is in it.
        found: String,
    },
    /// The directory cannot be made.
    #[error("cannot make the data directory {data}", data = data.display())]
    Directory {
        /// The data directory.
        data: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Nobody could reach it.
    #[error("a coordinator needs the name or address under which agents reach it: --hostname HOST")]
    NoHost,
    /// A key file or directory.
    #[error(transparent)]
    KeyFile(#[from] keyfile::Error),
    /// The authority.
    #[error(transparent)]
    Authority(#[from] authority::Error),
    /// The keys that heads and roots are signed with.
    #[error(transparent)]
    Signing(#[from] signing::Error),
    /// The first root document.
    #[error(transparent)]
    Root(#[from] root::Error),
    /// The first admin's keys.
    #[error(transparent)]
    Identity(#[from] directory::Error),
    /// The first admin's request.
    #[error(transparent)]
    Request(#[from] certs::csr::Error),
    /// The database.
    #[error(transparent)]
    Database(#[from] db::Error),
    /// The database is another network's.
    #[error(
        "the database of database.url holds a network already; give each network its own database"
    )]
    DatabaseInUse,
}

fn check_hosts(hosts: &[String]) -> Result<(), Error> {
    if hosts.is_empty() { Err(Error::NoHost) } else { Ok(()) }
}

/// Makes the directory, or takes an empty one.
pub(crate) fn prepare(data: &Path) -> Result<(), Error> {
    let failed = |source| Error::Directory { data: data.into(), source };
    if data.join(FILE).exists() {
        keyfile::check_dir(data)?;
        return Err(Error::Exists { data: data.into() });
    }
    match std::fs::read_dir(data) {
        Ok(mut entries) => {
            if let Some(Ok(entry)) = entries.next() {
                let found = entry.file_name().display().to_string();
                return Err(Error::NotEmpty { data: data.into(), found });
            }
            tighten(data)?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if let Some(parent) = data.parent() {
                std::fs::create_dir_all(parent).map_err(failed)?;
            }
            keyfile::create_dir(data)?;
        }
        Err(error) => return Err(failed(error)),
    }
    Ok(keyfile::check_dir(data)?)
}

/// An empty directory of our own may have been made with the usual mode.
fn tighten(data: &Path) -> Result<(), Error> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let failed = |source| Error::Directory { data: data.into(), source };
    let owner = std::fs::metadata(data).map_err(failed)?.uid();
    if owner == rustix::process::geteuid().as_raw() {
        std::fs::set_permissions(data, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
    }
    Ok(())
}

/// Root 1: this coordinator, and no publisher yet.
fn first_root(
    authority: &Authority,
    head_key: &SigningKey,
    root_key: &SigningKey,
    now: Timestamp,
) -> Result<Envelope, Error> {
    let root = Root {
        network: authority.network().clone(),
        number: RootNumber(1),
        created: now,
        keys: vec![root_key.verifying_key()],
        threshold: 1,
        head_keys: vec![head_key.verifying_key()],
        definition_keys: vec![],
        authorities: authority.root_pem().to_owned(),
        publishers: vec![],
        epochs: BTreeMap::new(),
    };
    Ok(root::sign(&root, &[root_key])?)
}

async fn first_admin(
    options: &InitOptions,
    authority: &Authority,
    root: &Envelope,
    database: &Database,
    now: Timestamp,
) -> Result<Arc<Identity>, Error> {
    let data = options.config.data.join(ADMIN);
    keyfile::create_dir(&data)?;
    let pending = Pending::enroll(&data, &[])?;
    let requested = RequestedKeys::check(pending.keys())?;
    let (role, name) = (Role::Admin, &options.admin);
    let issued = authority.issue(&requested.client, role, name, options.config.life(), now)?;
    let identity = StoredIdentity {
        role,
        name: name.clone(),
        site: None,
        signing_key: pending.signing_key(),
        trees: vec![],
        created: now,
        revoked: None,
        reason: String::new(),
        advertise: None,
        last_seen: None,
    };
    let certificate = StoredCertificate {
        serial: issued.serial.to_string(),
        role,
        name: name.clone(),
        issued: now,
        not_after: issued.not_after,
        superseded: None,
        revoked: None,
        confirmed: None,
        issuer: Some(authority.issuer_id()),
        bundle: Some(authority.bundle_id()),
    };
    let mut tx = database.write().await?;
    if !tx.identities().await?.is_empty() {
        return Err(Error::DatabaseInUse);
    }
    tx.add_root(RootNumber(1), root, now).await?;
    tx.put_identity(&identity).await?;
    tx.add_certificate(&certificate, "init", "").await?;
    let target = format!("{role}/{name}");
    let detail = format!("network {}, serial {}", options.network, certificate.serial);
    tx.audit(now, "coordinator", "init", &target, &detail).await?;
    tx.set_time(Counter::LookedAt, now).await?;
    tx.set_time(Counter::HeadRenewed, now).await?;
    tx.next_revision(&[Topic::Identities]).await?;
    tx.commit().await?;
    let membership = Membership {
        network: options.network.clone(),
        role,
        name: name.clone(),
        api_url: crate::server::api_url(&options.config, None),
        enroll_url: None,
        root: root.clone(),
        server_names: vec![],
    };
    let certificates = Certificates {
        chain: issued.chain_pem,
        server_chain: None,
        ca: authority.root_pem().to_owned(),
    };
    let untried = |_| async { Ok::<(), std::io::Error>(()) };
    Ok(pending.install(&membership, &certificates, untried).await?)
}

/// Only what was said; the rest keeps its default, also when a later version changes it.
fn configuration(config: &Config) -> String {
    let defaults = Config::default();
    let mut table = toml::Table::new();
    table.insert("hostnames".into(), config.hostnames.clone().into());
    let texts = [
        ("listen", &config.listen, &defaults.listen),
        ("enroll-listen", &config.enroll_listen, &defaults.enroll_listen),
    ];
    for (key, value, default) in texts {
        if value != default {
            table.insert(key.into(), value.clone().into());
        }
    }
    for (key, value) in [("api-url", &config.api_url), ("enroll-url", &config.enroll_url)] {
        if let Some(value) = value {
            table.insert(key.into(), value.clone().into());
        }
    }
    if let Some(url) = &config.database.url {
        let database = toml::Table::from_iter([("url".to_owned(), url.clone().into())]);
        table.insert("database".into(), database.into());
    }
    format!("# Written by `coordinator init`; every key: coordinator serve --help\n{table}")
}
