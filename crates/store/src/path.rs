//! Where an entry lives: components, not text, so that no separator in a name can move it elsewhere.

/// Longest component in bytes.
pub const MAX_COMPONENT_BYTES: usize = 1024;

/// A path of one to 32 non-empty components. A component may hold any character, `/` too.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StorePath(Vec<String>);

impl StorePath {
    /// The path of these components; none at all is the root directory, which can be listed but holds no entry.
    ///
    /// # Errors
    /// [`StorePathError`] for an empty or over-long component, or more than 32 of them.
    pub fn new<S: Into<String>>(components: impl IntoIterator<Item = S>) -> Result<Self, StorePathError> {
        let components: Vec<String> = components.into_iter().map(Into::into).collect();
        if components.len() > 32 {
            return Err(StorePathError::TooDeep);
        }
        if components.iter().any(|c| c.is_empty() || c.len() > MAX_COMPONENT_BYTES) {
            return Err(StorePathError::Component);
        }
        Ok(Self(components))
    }

    /// The components.
    pub fn components(&self) -> &[String] {
        &self.0
    }

    /// This path and one component more.
    ///
    /// # Errors
    /// [`StorePathError`].
    pub fn child(&self, component: impl Into<String>) -> Result<Self, StorePathError> {
        Self::new(self.0.iter().cloned().chain([component.into()]))
    }

    /// This path and those of `rest` (split at `/`) below it.
    ///
    /// # Errors
    /// [`StorePathError`].
    pub fn join(&self, rest: &str) -> Result<Self, StorePathError> {
        let rest = rest.split('/').filter(|c| !c.is_empty()).map(str::to_owned);
        Self::new(self.0.iter().cloned().chain(rest))
    }
}

/// Why components are no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorePathError {
    /// More than 32 components.
    #[error("a store path has at most 32 components")]
    TooDeep,
    /// A component is empty or over [`MAX_COMPONENT_BYTES`].
    #[error("a component of a store path has 1 to 1024 bytes")]
    Component,
}
