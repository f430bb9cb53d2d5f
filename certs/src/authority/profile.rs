//! What each kind of certificate says.

use jiff::{SignedDuration, Timestamp};
use protocol::name::NetworkName;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyUsagePurpose, RevokedCertParams,
    SanType, SerialNumber,
};
use rustls_pki_types::ServerName;
use time::OffsetDateTime;

use super::{BACKDATED, Error};
use crate::{
    identity::{IdentityUri, Serial},
    revocation::RevokedSerials,
};

const ROOT_LIFE: SignedDuration = SignedDuration::from_hours(30 * 365 * 24);
const INTERMEDIATE_LIFE: SignedDuration = SignedDuration::from_hours(20 * 365 * 24);
/// Most host names in one certificate.
const MAX_HOSTS: usize = 16;

pub(super) fn root(network: &NetworkName, now: Timestamp) -> Result<CertificateParams, Error> {
    let mut params = authority(format!("{network} root"), BasicConstraints::Constrained(1));
    params.subject_alt_names = vec![SanType::URI(ascii(&format!("spiffe://{network}"))?)];
    set_life(&mut params, &random_serial()?, now, end(now, ROOT_LIFE)?)?;
    Ok(params)
}

/// At most to `latest`, where what stands above it ends.
pub(super) fn clients(
    network: &NetworkName,
    now: Timestamp,
    latest: Timestamp,
) -> Result<CertificateParams, Error> {
    let mut params = authority(format!("{network} clients"), BasicConstraints::Constrained(0));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    set_life(&mut params, &random_serial()?, now, end(now, INTERMEDIATE_LIFE)?.min(latest))?;
    Ok(params)
}

/// At most to `latest`, where what stands above it ends.
pub(super) fn servers(
    network: &NetworkName,
    now: Timestamp,
    latest: Timestamp,
) -> Result<CertificateParams, Error> {
    let mut params = authority(format!("{network} servers"), BasicConstraints::Constrained(0));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    set_life(&mut params, &random_serial()?, now, end(now, INTERMEDIATE_LIFE)?.min(latest))?;
    Ok(params)
}

pub(super) fn client(uri: &IdentityUri) -> Result<CertificateParams, Error> {
    let mut params = leaf(uri)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

pub(super) fn server(uri: &IdentityUri, hosts: &[String]) -> Result<CertificateParams, Error> {
    let mut params = leaf(uri)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for host in hosts.iter().take(MAX_HOSTS) {
        let invalid = || Error::InvalidHost { host: host.chars().take(300).collect() };
        let name = match ServerName::try_from(host.as_str()).map_err(|_| invalid())? {
            ServerName::DnsName(name) => SanType::DnsName(ascii(name.as_ref())?),
            ServerName::IpAddress(address) => SanType::IpAddress(address.into()),
            _ => return Err(invalid()),
        };
        params.subject_alt_names.push(name);
    }
    Ok(params)
}

pub(super) fn revocation_list(
    revoked: &RevokedSerials,
    number: u64,
    life: SignedDuration,
    now: Timestamp,
) -> Result<CertificateRevocationListParams, Error> {
    let revoked_certs = revoked.iter().map(|(serial, revoked_at)| {
        Ok(RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial.as_bytes()),
            revocation_time: date(revoked_at)?,
            reason_code: None,
            invalidity_date: None,
        })
    });
    Ok(CertificateRevocationListParams {
        this_update: date(now)?,
        next_update: date(end(now, life)?)?,
        crl_number: SerialNumber::from(number),
        issuing_distribution_point: None,
        revoked_certs: revoked_certs.collect::<Result<_, Error>>()?,
        key_identifier_method: KeyIdMethod::Sha256,
    })
}

/// The end of a life that begins `now`.
pub(super) fn end(now: Timestamp, life: SignedDuration) -> Result<Timestamp, Error> {
    now.checked_add(life).map_err(|_| Error::Life { from: now, life })
}

pub(super) fn set_life(
    params: &mut CertificateParams,
    serial: &Serial,
    now: Timestamp,
    not_after: Timestamp,
) -> Result<(), Error> {
    params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
    params.not_before = date(end(now, -BACKDATED)?)?;
    params.not_after = date(not_after)?;
    Ok(())
}

fn authority(common_name: String, depth: BasicConstraints) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(depth);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params
}

fn leaf(uri: &IdentityUri) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, uri.name.as_str());
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.subject_alt_names = vec![SanType::URI(ascii(&uri.to_string())?)];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn random_serial() -> Result<Serial, Error> {
    Serial::random().map_err(Error::Random)
}

fn ascii(text: &str) -> Result<rcgen::string::Ia5String, Error> {
    text.try_into().map_err(Error::Issue)
}

fn date(timestamp: Timestamp) -> Result<OffsetDateTime, Error> {
    OffsetDateTime::from_unix_timestamp(timestamp.as_second())
        .map_err(|_| Error::Life { from: timestamp, life: SignedDuration::ZERO })
}
