//! Values that remember which definition decided them.

use protocol::v1::definitions::EffectiveSetting;
use serde::Serialize;

/// What `from` says where no definition set anything.
const DEFAULT: &str = "default";

/// A value and the definition that decided it.
#[derive(Debug, Clone)]
pub(super) struct Setting<T> {
    pub(super) value: T,
    pub(super) from: String,
}

impl<T> Setting<T> {
    /// Set by that definition, for example `site lisbon`.
    pub(super) fn new(value: T, from: impl Into<String>) -> Self {
        Self { value, from: from.into() }
    }

    /// Set by nobody.
    pub(super) fn default(value: T) -> Self {
        Self::new(value, DEFAULT)
    }

    /// The first of the levels that sets anything, closest first.
    pub(super) fn first<'a>(
        levels: impl IntoIterator<Item = (Option<T>, &'a str)>,
        default: T,
    ) -> Self {
        levels
            .into_iter()
            .find_map(|(value, from)| value.map(|value| Self::new(value, from)))
            .unwrap_or_else(|| Self::default(default))
    }
}

impl<T: Serialize> Setting<T> {
    /// As it is shown.
    pub(super) fn shown(&self, key: &str) -> EffectiveSetting {
        EffectiveSetting {
            key: key.to_owned(),
            // The values are texts, numbers and lists of them, which always convert.
            value: serde_json::to_value(&self.value).unwrap_or_default(),
            from: self.from.clone(),
        }
    }
}

/// A choice with a default: a definition that writes the default down decides nothing.
pub(super) fn choice<T: Default + PartialEq>(value: T, from: &str) -> Setting<T> {
    if value == T::default() { Setting::default(value) } else { Setting::new(value, from) }
}
