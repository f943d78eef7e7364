//! A store seen with one token, for those who make their requests without any.

use api::{Reply, Request};
use secret::Token;

use crate::{CallError, Vault};

/// Adds the token to each request that has none.
pub struct Bearer<'v, V> {
    vault: &'v V,
    token: &'v Token,
}

impl<'v, V: Vault> Bearer<'v, V> {
    /// `vault` as the holder of `token` sees it.
    pub fn new(vault: &'v V, token: &'v Token) -> Self {
        Self { vault, token }
    }

    /// The store without the token.
    pub fn anonymous(&self) -> &'v V {
        self.vault
    }
}

impl<V: Vault> Vault for Bearer<'_, V> {
    async fn call(&self, mut request: Request) -> Result<Reply, CallError> {
        request.token.get_or_insert_with(|| copy(self.token));
        self.vault.call(request).await
    }
}

impl<V> std::fmt::Debug for Bearer<'_, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bearer(..)")
    }
}

/// The same token once more, for the request that carries it away.
pub(crate) fn copy(token: &Token) -> Token {
    Token::parse(token.expose()).expect("a token's text is a token")
}
