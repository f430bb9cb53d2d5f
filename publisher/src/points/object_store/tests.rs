use std::io::Read;

use certs::dial::Dialer;
use filetree::fs::Fs;
use protocol::digest::Digest;
use tokio::runtime::Runtime;

use super::*;
use crate::points::{contract, put_verified};

#[path = "../../../../tests/stores.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the scenarios, which use more of it")]
mod stores;

use stores::Store;

struct World {
    runtime: Runtime,
    dir: tempfile::TempDir,
    store: Store,
    kind: stores::Kind,
}

impl World {
    fn start(kind: stores::Kind) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::start(kind, &dir.path().join("store"))?;
        let world = Self { runtime: Runtime::new().unwrap(), dir, store, kind };
        match kind {
            stores::Kind::Azurite => {
                stores::write_azure_credentials(&world.credentials(), stores::AZURE_KEY);
            }
            _ => stores::write_credentials(&world.credentials(), stores::SECRET_KEY),
        }
        Some(world)
    }

    fn credentials(&self) -> PathBuf {
        self.dir.path().join("store.toml")
    }

    fn point(&self) -> ObjectStore {
        let (scheme, endpoint) = match self.kind {
            stores::Kind::Azurite => {
                ("az", format!("{}/{}", self.store.endpoint(), stores::AZURE_ACCOUNT))
            }
            _ => ("s3", self.store.endpoint()),
        };
        let config = ObjectStoreConfig {
            url: format!("{scheme}://{}/below/it", stores::BUCKET),
            endpoint: Some(endpoint),
            region: default_region(),
            credentials: self.credentials(),
            virtual_hosted: false,
            signed_urls: true,
            roots: None,
        };
        let uploads = Fs::disk().create_root(&self.dir.path().join("uploads")).unwrap();
        let runtime = self.runtime.handle().clone();
        ObjectStore::open(&config, &Dialer::default(), uploads, runtime).unwrap()
    }

    fn uploads_under_way(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("uploads")).unwrap().count()
    }
}

fn object(content: &[u8]) -> Object {
    Object { tree: "fedora".parse().unwrap(), kind: Kind::Pack, name: Digest::of(content) }
}

/// Content that breaks off.
struct Cut<'a>(&'a [u8]);

impl Read for Cut<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.0.read(into) {
            Ok(0) => Err(io::ErrorKind::BrokenPipe.into()),
            read => read,
        }
    }
}

#[test]
fn a_store_that_checks_signatures_keeps_the_contract_of_points() {
    let Some(world) = World::start(stores::Kind::S3s) else { return };
    contract::check(&world.point());
    stores::write_credentials(&world.credentials(), "wrong");
    let error = world.point().put(&object(b"x"), &mut &b"x"[..], 1).unwrap_err();
    assert!(!error.to_string().contains("wrong"), "{error}");
    assert!(world.point().list(&"fedora".parse().unwrap(), Kind::Pack).is_err());
}

#[test]
fn a_store_that_keeps_conditions_keeps_the_contract_of_points_in_races_too() {
    let Some(world) = World::start(stores::Kind::Moto) else { return };
    contract::check(&world.point());
    contract::check_races(&world.point());
}

#[test]
fn a_store_of_azure_keeps_the_contract_of_points_and_signs_urls() {
    let Some(world) = World::start(stores::Kind::Azurite) else { return };
    contract::check(&world.point());
    contract::check_races(&world.point());
    let object = object(b"signed");
    world.point().put(&object, &mut &b"signed"[..], 6).unwrap();
    let url = world.point().signed_url(&object, Duration::from_secs(60)).unwrap().unwrap();
    let got = world.runtime.block_on(async { reqwest::get(&url).await.unwrap().bytes().await });
    assert_eq!(&got.unwrap()[..], b"signed");
    let unsigned = url.split('?').next().unwrap().to_owned();
    let refused = world.runtime.block_on(reqwest::get(unsigned)).unwrap().status();
    assert!(refused.is_client_error(), "{refused}");
    stores::write_azure_credentials(&world.credentials(), "d3Jvbmc=");
    let error = world.point().put(&object, &mut &b"signed"[..], 6).unwrap_err();
    assert!(!error.to_string().contains("d3Jvbmc="), "{error}");
}

#[test]
fn an_upload_that_was_interrupted_goes_on_where_it_was_in_the_next_process() {
    for kind in [stores::Kind::Moto, stores::Kind::Azurite] {
        goes_on_where_it_was(kind);
    }
}

fn goes_on_where_it_was(kind: stores::Kind) {
    let Some(world) = World::start(kind) else { return };
    let content: Vec<u8> = (0..70 << 20).map(|n: usize| (n >> 8) as u8 ^ n as u8).collect();
    let object = object(&content);
    let length = content.len() as u64;
    let first = world.point();
    first.put(&object, &mut Cut(&content[..50 << 20]), length).unwrap_err();
    assert_eq!((first.sent(), world.uploads_under_way()), (32 << 20, 1));
    let second = world.point();
    put_verified(&second, &object, &mut content.as_slice(), length, &object.name).unwrap();
    assert_eq!(second.sent(), length - (32 << 20), "what went up was sent again");
    assert_eq!(world.uploads_under_way(), 0);
}

#[test]
fn what_is_published_says_how_long_it_may_be_cached() {
    let Some(world) = World::start(stores::Kind::Moto) else { return };
    let point = world.point();
    let object = object(b"small");
    point.put(&object, &mut &b"small"[..], 5).unwrap();
    let tree = "fedora".parse().unwrap();
    assert!(point.move_latest(&tree, b"{}", &|_| true).unwrap());
    let told = |below: &str| {
        let path = point.path(below).unwrap();
        world.runtime.block_on(point.store.get(&path)).unwrap().attributes
    };
    assert_eq!(told(&object.to_string()), attributes(FOREVER, BINARY));
    assert_eq!(told("trees/fedora/latest"), attributes(SOON, "application/json"));
}

#[test]
fn credentials_that_others_can_read_are_refused() {
    use std::os::unix::fs::PermissionsExt as _;

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("s3.toml");
    stores::write_credentials(&file, "secret");
    let config = ObjectStoreConfig {
        url: "s3://bucket".into(),
        endpoint: None,
        region: default_region(),
        credentials: file.clone(),
        virtual_hosted: false,
        signed_urls: false,
        roots: None,
    };
    assert!(config.credentials(Scheme::S3).is_ok());
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(config.credentials(Scheme::S3), Err(Error::Secret(_))));
    stores::write_credentials(&file, "secret\"\nextra = \"");
    let error = config.credentials(Scheme::S3).err().unwrap().to_string();
    assert!(!error.contains("secret\""), "{error}");
}
