//! `edgekeep login`.

use std::io::Read;

use api::Operation;
use client::Vault;
use host::{Disk, OsDisk};
use secret::Token;

use super::answer::Answer;
use super::pairs;
use super::session::Session;
use super::token::read_token;
use crate::failure::{Code, Failure};

/// Without a method, a token is read from standard input and checked. Example:
/// edgekeep login -method=userpass username=technician password=- < password.txt
#[derive(clap::Args)]
pub(crate) struct Login {
    /// token or userpass.
    #[arg(long, value_name = "METHOD", default_value = "token")]
    method: String,
    /// Where the method is mounted, below auth/; by default it has its own name.
    #[arg(long, value_name = "MOUNT")]
    path: Option<String>,
    /// Show the token, and keep it nowhere.
    #[arg(long)]
    no_store: bool,
    /// username=NAME password=- and so on; - alone, or nothing, reads a token from standard input.
    #[arg(value_name = "KEY=VALUE")]
    data: Vec<String>,
}

impl Login {
    /// What it asks for on standard input.
    pub(super) fn secret(&self) -> &'static str {
        if self.method == "token" { "Token" } else { "Password" }
    }
}

pub(super) async fn run<V: Vault>(
    login: &Login,
    session: &Session<V>,
    stdin: &mut dyn Read,
) -> Result<Answer, Failure> {
    if !login.no_store && session.token_file.is_none() {
        return Err(
            Failure::usage("there is no place to keep a token").hint("set HOME and leave --as away, or add --no-store")
        );
    }
    match login.method.as_str() {
        "token" => with_token(login, session, stdin).await,
        "userpass" => with_password(login, session, stdin).await,
        other => Err(Failure::usage(format!("the method {other:?} is not known")).hint("use token or userpass")),
    }
}

/// The token is used once before it is kept: a slip would otherwise be found much later.
async fn with_token<V: Vault>(login: &Login, session: &Session<V>, stdin: &mut dyn Read) -> Result<Answer, Failure> {
    if !matches!(login.data.as_slice(), [] | [_]) || login.data.first().is_some_and(|d| d != "-") {
        return Err(Failure::usage("a token is among the arguments, where every user can read it")
            .hint("give it on standard input: edgekeep login < token.txt"));
    }
    let text = read_token(stdin)?;
    let token = Token::parse(&text).map_err(|e| Failure::usage(e.to_string()))?;
    let path = api::ApiPath::parse("auth/token/lookup-self").map_err(|e| Failure::fault(e.to_string()))?;
    let request = api::Request::new(Operation::Read, path).with_token(token);
    let reply = session.vault.call(request).await.map_err(|e| Failure::of(Code::NotReady, &e))?;
    if !reply.status.is_success() {
        return Err(Failure::new(Code::Refused, "the store does not know this token, or it has expired")
            .hint("ask for a new one, or log in with -method=userpass"));
    }
    if !login.no_store {
        keep(session, &text)?;
    }
    Ok(Answer::reply(reply, String::new))
}

async fn with_password<V: Vault>(login: &Login, session: &Session<V>, stdin: &mut dyn Read) -> Result<Answer, Failure> {
    let mount = login.path.as_deref().unwrap_or("userpass").trim_matches('/');
    let (names, rest): (Vec<&String>, Vec<&String>) = login.data.iter().partition(|p| p.starts_with("username="));
    let [name] = names.as_slice() else {
        return Err(Failure::usage("no username is given").hint("add username=NAME and password=-"));
    };
    let name = name.trim_start_matches("username=");
    if rest.iter().any(|p| p.starts_with("password=") && !p.starts_with("password=@") && *p != "password=-") {
        return Err(Failure::usage("a password is among the arguments, where every user can read it")
            .hint("write password=- and give it on standard input, or password=@FILE"));
    }
    let rest: Vec<String> = rest.into_iter().cloned().collect();
    let body = pairs::body(&rest, &mut FirstLine(stdin))?;
    let reply = session.call(Operation::Write, &format!("auth/{mount}/login/{name}"), Some(body)).await?;
    let Some(auth) = reply.auth() else {
        return Err(Failure::fault("the store lets in and gives no token"));
    };
    if !login.no_store {
        keep(session, auth.client_token.expose())?;
    }
    Ok(Answer::reply(reply, String::new))
}

/// Standard input up to the end of its first line: `echo` adds one, and no password has one.
struct FirstLine<'a>(&'a mut dyn Read);

impl Read for FirstLine<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let Some(first) = out.get_mut(..1) else { return Ok(0) };
        match self.0.read(first)? {
            1 if matches!(first, [b'\n' | b'\r']) => Ok(0),
            n => Ok(n),
        }
    }
}

fn keep<V>(session: &Session<V>, token: &str) -> Result<(), Failure> {
    let Some(file) = &session.token_file else { return Ok(()) };
    OsDisk.replace(file, token.as_bytes(), 0o600, None).map_err(|e| {
        Failure::fault(format!("cannot keep the token in {}: {e}", file.display()))
            .hint("add --no-store to see it instead")
    })
}
