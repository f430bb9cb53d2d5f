//! What an identity may be in a network.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The role that a certificate carries. What the role's holder may *do* is looked up by the
/// coordinator for every request; the role only says which questions it may ask at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Role {
    /// A mirror agent at a site.
    Agent,
    /// A publisher at an upstream.
    Publisher,
    /// A person or program that may change definitions.
    Admin,
    /// A person or program that may only read them.
    Viewer,
    /// A person or program that sees and does what concerns one site.
    Operator,
    /// The coordinator's server side; never a client.
    Coordinator,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] = [
        Self::Agent,
        Self::Publisher,
        Self::Admin,
        Self::Viewer,
        Self::Operator,
        Self::Coordinator,
    ];

    /// Whether an identity of this role belongs to a site.
    pub const fn has_site(self) -> bool {
        matches!(self, Self::Agent | Self::Operator)
    }

    /// The role as it is written in certificates, URLs and configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Publisher => "publisher",
            Self::Admin => "admin",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Coordinator => "coordinator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(UnknownRole)
    }
}

/// Text that names no role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a role: expected agent, publisher, admin, viewer, operator or coordinator")]
pub struct UnknownRole;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_reads_back_as_it_is_written_and_nothing_else_does() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert_eq!("Agent".parse::<Role>(), Err(UnknownRole));
    }
}
