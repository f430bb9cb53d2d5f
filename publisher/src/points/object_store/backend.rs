//! The kinds of store, each opened by its own builder of the library; from then on all are alike.

use std::{io, time::Duration};

use object_store::{
    RetryConfig,
    aws::AmazonS3Builder,
    azure::MicrosoftAzureBuilder,
    client::{ClientOptions, HttpClient, HttpConnector},
    multipart::MultipartStore,
    signer::Signer,
};
use serde::Deserialize;

use super::{Error, ObjectStoreConfig};

/// What every kind of store can do.
pub(super) trait Backend: object_store::ObjectStore + MultipartStore + Signer {}
impl<T: object_store::ObjectStore + MultipartStore + Signer> Backend for T {}

/// In whose language a store is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    S3,
    Azure,
}

impl Scheme {
    /// The kind of a URL, and what follows it.
    pub(super) fn of(url: &str) -> Option<(Self, &str)> {
        let of = |scheme, begin| Some((scheme, url.strip_prefix(begin)?));
        of(Self::S3, "s3://").or_else(|| of(Self::Azure, "az://"))
    }

    /// The line that belongs into the file of credentials.
    pub(super) fn credentials_wanted(self) -> &'static str {
        match self {
            Self::S3 => "access-key-id = \"…\" and secret-access-key = \"…\"",
            Self::Azure => "account = \"…\" and access-key = \"…\"",
        }
    }
}

/// Who writes; never shown.
pub(super) enum Credentials {
    S3(S3Credentials),
    Azure(AzureCredentials),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct S3Credentials {
    access_key_id: String,
    secret_access_key: String,
    #[serde(default)]
    session_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct AzureCredentials {
    account: String,
    access_key: String,
}

impl Credentials {
    /// Reads the text of a file of credentials; what is wrong with it is not told, because that could
    /// repeat a part of it.
    pub(super) fn parse(scheme: Scheme, text: &str) -> Option<Self> {
        match scheme {
            Scheme::S3 => toml::from_str(text).map(Self::S3).ok(),
            Scheme::Azure => toml::from_str(text).map(Self::Azure).ok(),
        }
    }
}

/// Opens a store; nothing is asked yet.
pub(super) fn open(
    config: &ObjectStoreConfig,
    bucket: &str,
    credentials: Credentials,
    client: HttpClient,
) -> Result<Box<dyn Backend>, Error> {
    let retry = RetryConfig {
        max_retries: 4,
        retry_timeout: Duration::from_secs(60),
        ..RetryConfig::default()
    };
    let endpoint = config.endpoint.as_deref().map(|endpoint| endpoint.trim_end_matches('/'));
    let failed = |source| Error::Store { url: config.name(), source: Box::new(source) };
    match credentials {
        Credentials::S3(credentials) => {
            let mut builder = AmazonS3Builder::new()
                .with_bucket_name(bucket)
                .with_region(&config.region)
                .with_access_key_id(credentials.access_key_id)
                .with_secret_access_key(credentials.secret_access_key)
                .with_virtual_hosted_style_request(config.virtual_hosted)
                .with_allow_http(true)
                .with_retry(retry)
                .with_http_connector(Ours(client));
            if let Some(token) = credentials.session_token {
                builder = builder.with_token(token);
            }
            if let Some(endpoint) = endpoint {
                builder = builder.with_endpoint(endpoint);
            }
            Ok(Box::new(builder.build().map_err(failed)?))
        }
        Credentials::Azure(credentials) => {
            let mut builder = MicrosoftAzureBuilder::new()
                .with_container_name(bucket)
                .with_account(credentials.account)
                .with_access_key(credentials.access_key)
                .with_allow_http(true)
                .with_retry(retry)
                .with_http_connector(Ours(client));
            if let Some(endpoint) = endpoint {
                builder = builder.with_endpoint(endpoint.into());
            }
            Ok(Box::new(builder.build().map_err(failed)?))
        }
    }
}

/// Whether a store no longer knows the parts of an upload that was begun: some say that there is no
/// such upload, Azure that the list of its blocks is invalid.
pub(super) fn has_forgotten_upload(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.to_string().contains("InvalidBlockList")
}

/// Gives the library our client.
#[derive(Debug)]
struct Ours(HttpClient);

impl HttpConnector for Ours {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(self.0.clone())
    }
}
