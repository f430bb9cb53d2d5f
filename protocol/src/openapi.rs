//! Schemas of the values that are written as one text or one number; structures derive theirs.

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type},
    },
};

use crate::{
    digest::Digest,
    dsse::Bytes,
    fingerprint::KeyFingerprint,
    generation::{Epoch, Generation, HeadNumber, RestoreEpoch, Revision, RootNumber},
    hold::HoldId,
    key::VerifyingKey,
    name::{IdentityName, NetworkName, SiteName, SourceName, TreeName, UpstreamName},
    path::TreePath,
    point::PointRef,
    root::TreePattern,
    schedule::Cron,
    spec::{AssignmentName, Budget, Rate},
    units::{ByteSize, Span, Threshold},
    v1::keys::SecretKey,
};

/// Schemas of texts, each with what it is and an example.
macro_rules! texts {
    ($($type:ty: $description:literal, $example:literal;)*) => {$(
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .description(Some($description))
                    .examples([$example])
                    .into()
            }
        }

        impl ToSchema for $type {}
    )*};
}

/// Schemas of numbers that only grow.
macro_rules! numbers {
    ($($type:ty: $description:literal;)*) => {$(
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(Type::Integer)
                    .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
                    .minimum(Some(0))
                    .description(Some($description))
                    .into()
            }
        }

        impl ToSchema for $type {}
    )*};
}

texts! {
    KeyFingerprint: "Names the keys that an enrollment asks for", "01ab-23cd-45ef-0167-89ab-cdef-0123-4567";
    HoldId: "Short name of a hold.", "hold-9f2c1a7b3d04";
    NetworkName: "Name of the network.", "example";
    UpstreamName: "Name of an upstream.", "build";
    SourceName: "Name of a source.", "releases";
    TreeName: "Name of a tree.", "fedora";
    TreePattern: "Names of trees: a name in which one * may stand for anything.", "fedora-*";
    SiteName: "Name of a site.", "lisbon";
    IdentityName: "Name of an identity.", "lisbon-1";
    AssignmentName: "An assignment (or a grant): TREE@SITE.", "fedora@lisbon";
    TreePath: "A relative path without empty, '.' and '..' components; bytes that are not UTF-8 are escaped.", "repodata/repomd.xml";
    PointRef: "A publication point: origin, signed, or a base URL.", "https://cdn.example.org/mirror";
    Digest: "BLAKE3-256 in hex.", "b3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    VerifyingKey: "An Ed25519 public key: the base64 of its 32 bytes.", "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    Bytes: "Bytes in base64.", "aGk=";
    SecretKey: "32 secret bytes in hex.", "0000000000000000000000000000000000000000000000000000000000000000";
    Span: "A time: whole numbers with s, m, h, d or w.", "1h30m";
    ByteSize: "A number of bytes, with a unit or without.", "8MiB";
    Threshold: "A number, or a part of the whole in percent.", "10%";
    Budget: "Bytes in a calendar month.", "500GiB/month";
    Cron: "A cron expression: minute, hour, day of the month, month, day of the week.", "30 2 * * mon-fri";
    Rate: "Bytes per second, or unlimited.", "2MiB/s";
}

numbers! {
    Generation: "Number of a tree's content, from 1 within an epoch.";
    Epoch: "Raised when a tree's generations start over.";
    Revision: "Number of a wanted state.";
    RestoreEpoch: "Raised when the coordinator is restored from a backup.";
    HeadNumber: "Number of a signed head.";
    RootNumber: "Number of a root document.";
}
