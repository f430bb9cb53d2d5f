use jiff::SignedDuration;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose as Usage, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};

use super::*;

/// Red Hat's arc of entitlements.
const ARC: [u64; 9] = [1, 3, 6, 1, 4, 1, 2312, 9, 0];

struct Ca {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
}

impl Ca {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { params, key, pem }
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    /// A certificate that this authority makes.
    fn leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> Shown {
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![Usage::ClientAuth];
        params.serial_number = Some(SerialNumber::from(7u64));
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2030, 1, 1);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer()).unwrap();
        Shown::new(&[leaf.der().clone()]).unwrap()
    }

    /// A list that takes back the certificates of these numbers.
    fn list(&self, serials: &[u64]) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2029, 1, 1),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer()).unwrap().pem().unwrap()
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn now() -> Timestamp {
    at("2025-06-01T00:00:00Z")
}

fn utf8(text: &str) -> Vec<u8> {
    let mut der = vec![0x0c];
    match text.len() {
        short @ 0..=0x7f => der.push(short as u8),
        long => {
            der.push(0x82);
            der.extend(u16::try_from(long).unwrap().to_be_bytes());
        }
    }
    der.extend(text.as_bytes());
    der
}

fn extension(below: &[u64], content: Vec<u8>) -> CustomExtension {
    let oid = [&ARC[..8], below].concat();
    CustomExtension::from_oid_content(&oid, content)
}

/// An entitlement to these paths.
fn entitled(ca: &Ca, paths: &[&str]) -> Shown {
    ca.leaf(|params| {
        params.custom_extensions = vec![extension(&[4, 1], utf8("order 66"))];
        for (number, path) in (1000..).zip(paths) {
            params.custom_extensions.push(extension(&[2, number, 1, 6], utf8(path)));
        }
    })
}

#[test]
fn a_certificate_opens_what_its_authority_stands_for_while_it_is_in_date() {
    let (ca, second, foreign) = (Ca::new("one"), Ca::new("two"), Ca::new("one"));
    let bundle = format!("subject=one\n{}\nand another:\n{}\n", ca.pem, second.pem);
    let guard = Authorities::from_pem(&bundle, None).unwrap();
    let check = |shown: &Shown, now| guard.check(shown, now);
    assert_eq!(check(&ca.leaf(|_| {}), now()), Ok(()));
    assert_eq!(check(&second.leaf(|_| {}), now()), Ok(()), "the whole bundle counts");
    assert_eq!(check(&ca.leaf(|p| p.extended_key_usages.clear()), now()), Ok(()));
    let name = |p: &mut CertificateParams| p.distinguished_name.push(DnType::CommonName, "admin");
    let refused = [
        ("another authority of the same name", foreign.leaf(name), now()),
        ("itself", Shown::from_pem(&foreign.pem).unwrap(), now()),
        ("too late", ca.leaf(|_| {}), at("2031-01-01T00:00:00Z")),
        ("too early", ca.leaf(|_| {}), at("2019-01-01T00:00:00Z")),
        ("for servers", ca.leaf(|p| p.extended_key_usages = vec![Usage::ServerAuth]), now()),
    ];
    for (what, shown, now) in &refused {
        assert!(matches!(check(shown, *now), Err(Denied::Chain(_))), "{what}");
    }
}

#[test]
fn what_an_authority_takes_back_opens_nothing() {
    let (ca, other) = (Ca::new("one"), Ca::new("two"));
    let bundle = format!("{}{}", ca.pem, other.pem);
    let guard = |serials: &[u64]| Authorities::from_pem(&bundle, Some(&ca.list(serials))).unwrap();
    let shown = ca.leaf(|_| {});
    assert_eq!(guard(&[8]).check(&shown, now()), Ok(()));
    assert!(matches!(guard(&[7, 8]).check(&shown, now()), Err(Denied::Chain(_))));
    assert_eq!(guard(&[7]).check(&other.leaf(|_| {}), now()), Ok(()), "the other has no list");
    let forged = Ca::new("one").list(&[7]);
    let with_forged = Authorities::from_pem(&bundle, Some(&forged)).unwrap();
    assert!(
        with_forged.check(&shown, now()).is_err(),
        "a list that cannot be believed opens nothing"
    );
}

#[test]
fn what_is_no_bundle_is_no_guard() {
    let ca = Ca::new("one");
    let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for bad in ["", "no pem at all", junk, &format!("{}{junk}", ca.pem)] {
        assert!(Authorities::from_pem(bad, None).is_err(), "{bad}");
    }
    for bad in ["", "no pem", &ca.pem] {
        assert!(Authorities::from_pem(&ca.pem, Some(bad)).is_err(), "{bad}");
    }
    for bad in ["", "junk", &junk.replace("AAAA", "****")] {
        assert_eq!(Shown::from_pem(bad), None, "{bad}");
    }
    assert_eq!(Shown::from_pem(&ca.pem.repeat(MAX_CHAIN + 1)), None, "too long a chain");
}

#[test]
fn an_entitlement_opens_its_paths_and_what_lies_below() {
    let ca = Ca::new("one");
    let paths = [
        "/foo/path/never",
        "/foo/path/always/$releasever",
        "/foo/path/always/$releasever/bar",
        "//slashes//count/once/",
        "/path/to/$basearch/$releasever/awesomeos",
    ];
    let entitlement = Entitlement::read(entitled(&ca, &paths).certificate()).unwrap();
    for open in [
        "/foo/path/never",
        "/foo/path/never/x",
        "//foo//path/never/",
        "/foo/path/never/bar/baz",
        "/foo/path/always/1.0",
        "/foo/path/always/1.0/x/y",
        "/slashes/count/once/f",
        "/path/to/x86_64/42/awesomeos",
        "/path/to/x86_64/42/awesomeos/repodata/repomd.xml",
    ] {
        assert!(entitlement.opens(open), "{open}");
    }
    for shut in [
        "/foo",
        "/foo/path/",
        "foo",
        "",
        "/",
        "/content/foo/path/never",
        "/foo/path/neverland",
        "/foo/path/always",
        "/foo/path/always/",
        "/path/to//bar/awesomeos",
        "/path/to/x86_64/awesomeos",
        "/path/to/x86_64/42/awesomeos2",
        "/slashes/count/on",
    ] {
        assert!(!entitlement.opens(shut), "{shut}");
    }
}

#[test]
fn what_names_no_order_no_path_or_a_later_version_is_no_entitlement() {
    let ca = Ca::new("one");
    let read = |extensions: Vec<CustomExtension>| {
        Entitlement::read(ca.leaf(|p| p.custom_extensions = extensions).certificate())
    };
    let (order, path) =
        (|| extension(&[4, 1], utf8("order")), || extension(&[2, 1, 1, 6], utf8("/a")));
    assert!(read(vec![order(), path()]).is_ok());
    assert!(read(vec![order(), path(), extension(&[6], utf8("1.0"))]).is_ok());
    let table = [
        (vec![], NotEntitled::NoEntitlement),
        (vec![path()], NotEntitled::NoEntitlement),
        (vec![order()], NotEntitled::NoEntitlement),
        (vec![order(), extension(&[2, 1, 1, 6], utf8("//"))], NotEntitled::NoEntitlement),
        (vec![order(), extension(&[2, 1, 1, 5], utf8("/a"))], NotEntitled::NoEntitlement),
        (vec![order(), extension(&[2, 1, 6], utf8("/a"))], NotEntitled::NoEntitlement),
        (vec![order(), path(), extension(&[6], utf8("3.4"))], NotEntitled::Version(3)),
        (vec![order(), path(), extension(&[6], utf8("three"))], NotEntitled::Malformed),
    ];
    for (extensions, wanted) in table {
        assert_eq!(read(extensions), Err(wanted));
    }
    let hostile: [Vec<u8>; 8] = [
        vec![],
        vec![0x0c],
        vec![0x0c, 5, b'a'],
        vec![0x0c, 1, b'a', b'b'],
        vec![0x0c, 0x84, 0xff, 0xff, 0xff, 0xff, b'a'],
        vec![0x0c, 0x82, 0xff],
        vec![0x0c, 2, 0xff, 0xfe],
        vec![0x30, 2, 0x05, 0x00],
    ];
    for content in hostile {
        let shown = read(vec![order(), extension(&[2, 1, 1, 6], content.clone())]);
        assert_eq!(shown, Err(NotEntitled::Malformed), "{content:x?}");
    }
    let long = "/a".repeat(3_000);
    let long = read(vec![order(), extension(&[2, 1, 1, 6], utf8(&long))]);
    assert_eq!(long, Err(NotEntitled::TooMany));
}

#[test]
fn damaged_entitlements_are_read_without_a_panic_and_open_no_more() {
    let ca = Ca::new("one");
    let good = entitled(&ca, &["/a/$b/c", "/d"]).certificate().to_vec();
    let mut state = 88_172_645_463_325_252u64;
    let mut below = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 16).unwrap() % limit
    };
    for _ in 0..5_000 {
        let mut bad = good.clone();
        for _ in 0..=below(3) {
            let at = below(bad.len());
            match below(4) {
                0 => bad[at] ^= 1 << below(8),
                1 => bad[at] = [0, 0x7f, 0x80, 0x84, 0xff][below(5)],
                2 => bad.truncate(at.max(1)),
                _ => bad.insert(at, 0x30),
            }
        }
        if let Ok(entitlement) = Entitlement::read(&bad) {
            assert!(!entitlement.opens("/") && !entitlement.opens(""));
        }
    }
    let guard = Authorities::from_pem(&ca.pem, None).unwrap();
    let later = now() + SignedDuration::from_hours(1);
    for length in (0..good.len()).step_by(7) {
        let cut = Shown::new(&[CertificateDer::from(good[..length].to_vec())]).unwrap();
        assert!(guard.check(&cut, later).is_err(), "{length}");
    }
}

/// An authority that another one has made.
fn below(above: &Ca, name: &str, serial: u64) -> Ca {
    let mut made = Ca::new(name);
    made.params.serial_number = Some(SerialNumber::from(serial));
    made.params.not_before = date_time_ymd(2020, 1, 1);
    made.params.not_after = date_time_ymd(2030, 1, 1);
    made.pem = made.params.signed_by(&made.key, &above.issuer()).unwrap().pem();
    made
}

#[test]
fn a_chain_counts_as_a_whole_also_where_a_link_of_it_was_taken_back() {
    let root = Ca::new("root");
    let between = below(&root, "between", 5);
    let leaf = between.leaf(|_| {});
    let chain = {
        let made = CertificateDer::from_pem_slice(between.pem.as_bytes()).unwrap();
        Shown::new(&[leaf.0[0].clone(), made]).unwrap()
    };
    let alone =
        |shown: &Shown| Authorities::from_pem(&root.pem, None).unwrap().check(shown, now()).is_ok();
    assert!(alone(&chain), "with what is between");
    assert!(!alone(&leaf), "nothing leads there");
    // A proxy tells only the consumer's own certificate: the bundle has what is between.
    let both = format!("{}{}", between.pem, root.pem);
    let with = |lists: &str| Authorities::from_pem(&both, Some(lists)).unwrap();
    Authorities::from_pem(&both, None).unwrap().check(&leaf, now()).unwrap();
    let only = Authorities::from_pem(&between.pem, None).unwrap();
    only.check(&leaf, now()).unwrap();
    with(&root.list(&[6])).check(&leaf, now()).unwrap();
    for shown in [&leaf, &chain] {
        let refused = with(&root.list(&[5])).check(shown, now());
        assert!(matches!(refused, Err(Denied::Chain(_))), "what is between was taken back");
        let refused = with(&between.list(&[7])).check(shown, now());
        assert!(matches!(refused, Err(Denied::Chain(_))), "the certificate was taken back");
    }
    // Two that made each other are both ends, as no third one is.
    let (mut one, mut two) = (Ca::new("one"), Ca::new("two"));
    (one.pem, two.pem) = (
        one.params.signed_by(&one.key, &two.issuer()).unwrap().pem(),
        two.params.signed_by(&two.key, &one.issuer()).unwrap().pem(),
    );
    let pair = Authorities::from_pem(&format!("{}{}", one.pem, two.pem), None).unwrap();
    pair.check(&one.leaf(|_| {}), now()).unwrap();
}
