//! Why the other end refused us, dug out of an error.

use std::error::Error as StdError;

use rustls::{AlertDescription, CertificateError};

/// What one end of a connection held against the other's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The server says that our certificate is revoked.
    #[error("this program's certificate is revoked; a new invite is needed")]
    Revoked,
    /// The server says that our certificate has expired.
    #[error("this program's certificate has expired, or one of the two clocks is wrong")]
    Expired,
    /// The server does not know who signed our certificate.
    #[error("the server does not belong to the network that certified this program")]
    UnknownAuthority,
    /// The server wants a certificate and got none.
    #[error("the server wants a certificate, and none was shown")]
    CertificateRequired,
    /// The server holds something else against our certificate.
    #[error("the server does not accept this program's certificate")]
    NotAccepted,
    /// The server's certificate is not valid at our time.
    #[error("the server's certificate is not valid at this machine's time; is one clock wrong?")]
    ServerOutOfTime,
    /// We hold something else against the server's certificate.
    #[error("the server's certificate is not the expected one")]
    ServerNotTrusted,
}

/// Finds out whether `error`, from a connection or a request, says that one end did not accept the
/// other's certificate.
///
/// In TLS 1.3 a client's handshake succeeds before the server has looked at its certificate, so the
/// refusal arrives with the first answer and looks like a broken connection.
pub fn refusal(error: &(dyn StdError + 'static)) -> Option<Refusal> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return classify(error);
        }
        // An io::Error's source skips the error that it wraps.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match wrapped {
            Some(inner) => Some(inner),
            None => error.source(),
        };
        if next.is_none() {
            return from_text(&error.to_string());
        }
    }
    None
}

fn classify(error: &rustls::Error) -> Option<Refusal> {
    match error {
        rustls::Error::AlertReceived(alert) => from_alert(*alert),
        rustls::Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => Some(Refusal::ServerOutOfTime),
        rustls::Error::InvalidCertificate(_) => Some(Refusal::ServerNotTrusted),
        _ => None,
    }
}

/// HTTP/2 hands the error of a connection to each of its requests, as text.
fn from_text(text: &str) -> Option<Refusal> {
    ALERTS.into_iter().find_map(|alert| {
        let same = rustls::Error::AlertReceived(alert).to_string() == text;
        if same { from_alert(alert) } else { None }
    })
}

/// The alerts that speak of certificates.
const ALERTS: [AlertDescription; 9] = [
    AlertDescription::CertificateRevoked,
    AlertDescription::CertificateExpired,
    AlertDescription::CertificateRequired,
    AlertDescription::UnknownCA,
    AlertDescription::DecryptError,
    AlertDescription::BadCertificate,
    AlertDescription::UnsupportedCertificate,
    AlertDescription::CertificateUnknown,
    AlertDescription::AccessDenied,
];

fn from_alert(alert: AlertDescription) -> Option<Refusal> {
    Some(match alert {
        AlertDescription::CertificateRevoked => Refusal::Revoked,
        AlertDescription::CertificateExpired => Refusal::Expired,
        AlertDescription::CertificateRequired => Refusal::CertificateRequired,
        // DecryptError: an authority of the same name signed it, with another key.
        AlertDescription::UnknownCA | AlertDescription::DecryptError => Refusal::UnknownAuthority,
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied => Refusal::NotAccepted,
        _ => return None,
    })
}
