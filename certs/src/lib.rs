//! Who is speaking: certificate authority, enrollment, identities, TLS and signing.
