//! `security-secretstore-setup`: from a Vault or OpenBao in whatever state to one that serves EdgeX, with its keys
//! wrapped under this device's hardware.
//!
//! ```text
//! hook -> IKM     shares: made, or read; the store: made, unsealed, or as it is      (external::bring_up)
//! root token      for the length of what follows, and ended on every way out         (external::with_root)
//!   mounts, signing key, login of the shares
//!   issuing token -> every service has a new token in its file -> issuing token ends
//!   credentials, eKuiper's files, the proxy's certificate
//!   the tokens of before end: nobody needs them any more
//! ```

mod beside;
mod credentials;
mod hook;
mod migrate;
mod provider;
mod proxy;
mod regenerate;
mod watch;

pub(crate) use migrate::{decrypt, encrypt};

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use boot::plan::Plan;
use boot::provision::lay_mounts;
use clap::Parser;
use client::{Bearer, Remote, Vault};
use config::SetupFace;
use external::{
    Custody, CustodyError, Done, Opened, Patient, RootError, RootToken, ShareCounts, Stop, Stopped, Sweep, Swept, Wish,
    bring_up_beside, with_root,
};
use host::{OsClock, OsDisk, OsEntropy};

use super::face::{self, Ground, Where};
use crate::failure::{Code, Failure};

/// Initialises, unseals and fills the secret store of EdgeX.
#[derive(Parser)]
#[command(name = "security-secretstore-setup", version, max_term_width = 100, arg_required_else_help = true)]
struct Arguments {
    #[command(flatten)]
    at: Where,
    /// The longest pause between two looks at the store, in seconds.
    #[arg(long = "secretStoreInterval", alias = "vaultInterval", value_name = "SECONDS", default_value_t = 30)]
    interval: u64,
    /// Has no effect: certificates are always verified.
    #[arg(long = "insecureSkipVerify", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    insecure_skip_verify: Option<bool>,
    /// Wrap key shares that lie in clear under the hook, have the store replace them, and end.
    #[arg(long = "encryptExisting", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    encrypt_existing: Option<bool>,
    /// Make the store, for a set-up that waits for it and has given the key material.
    #[arg(long = "makeStore", hide = true)]
    make_store: bool,
    /// Give services whose token has ended another, at a socket, until a signal.
    #[arg(long = "longRun", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    long_run: Option<bool>,
}

pub(super) fn run(arguments: Vec<OsString>) -> ExitCode {
    let arguments = match face::parse::<Arguments>(arguments) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    crate::process::log("info");
    crate::process::lock_memory();
    face::exit(|stop| set_up(arguments, stop))
}

async fn set_up(arguments: Arguments, stop: Stop) -> Result<(), Failure> {
    if arguments.insecure_skip_verify == Some(true) {
        tracing::warn!("--insecureSkipVerify has no effect: certificates are always verified");
    }
    let ground = Ground::of_process()?;
    if arguments.encrypt_existing == Some(true) {
        return migrate::encrypt(&ground, &arguments.at, None, &stop).await;
    }
    if arguments.make_store {
        return beside::run(&ground, &arguments.at).await;
    }
    if arguments.long_run == Some(true) {
        return regenerate::long_run(&ground, &arguments.at, &stop).await;
    }
    let face = ground.read(&arguments.at, "res", |face| face.setup())?;
    face.notes.iter().for_each(|note| tracing::info!("{note}"));
    // All that can be wrong with the device is looked at before the store hears of us.
    let passwords = credentials::passwords(&face, &ground, &stop).await?;
    let provider = provider::Provider::find(&face, &ground)?;
    let proxy = face.proxy.as_ref().map(proxy::Pair::read).transpose()?;
    let vault = face::connect(&face.store)?;
    let keeping = hook::keeping(&face, &ground, false)?;
    let custody = Custody::new(&OsDisk, &OsEntropy, &face.shares_dir, &face.shares_file, ground.uid(), keeping);

    let wish = Wish {
        counts: ShareCounts { shares: face.shares, threshold: face.threshold },
        limit: LIMIT,
        longest_pause: Duration::from_secs(arguments.interval.clamp(1, 3600)),
        reunseal: face.reunseal,
    };
    let clock = OsClock::new().map_err(|e| Failure::fault(format!("the kernel's boot id cannot be read: {e}")))?;
    let beside = async || beside::start(&arguments.at, &custody).await;
    let opened = bring_up_beside(&vault, &custody, wish, &clock, &stop, beside)
        .await
        .map_err(|e| Failure::of(Code::Refused, &e).hint(e.hint()))?;
    match opened.done {
        Done::Made => {
            tracing::info!(file = %custody.file().display(), "the store was made, its shares kept, and unsealed")
        }
        Done::Unsealed => tracing::info!("the store was unsealed"),
        Done::Nothing => tracing::info!("the store is open"),
    }
    let work = Work { face: &face, ground: &ground, vault: &vault, custody: &custody, stop: &stop };
    work.provision(opened, &provider, &passwords, proxy.as_ref()).await?;
    tracing::info!("the secret store is ready");
    Ok(())
}

/// What provisioning needs.
struct Work<'w> {
    face: &'w SetupFace,
    ground: &'w Ground,
    vault: &'w Patient<Remote>,
    custody: &'w Custody<'w>,
    stop: &'w Stop,
}

impl Work<'_> {
    async fn provision(
        &self,
        opened: Opened,
        provider: &provider::Provider,
        passwords: &credentials::Source,
        proxy: Option<&proxy::Pair>,
    ) -> Result<(), Failure> {
        let (root, mut shares) = match opened.initial_root {
            Some(root) => (root, opened.shares),
            None => RootToken::for_custody(self.vault, self.custody, opened.shares).await?,
        };
        // Not to be stopped: whoever ends between the two has no way back in.
        let root = root.with_login(self.vault, self.custody, &shares).await?;
        with_root(self.vault, root, async |root| {
            let sweep = self.stop.or(asked(Sweep::count(&root))).await?;
            // Only now: until there is another way to a root token, the one in the file is somebody's last resort.
            if self.face.revoke_root_tokens && self.custody.drop_root_token(&mut shares).map_err(custody_failed)? {
                tracing::info!(
                    "a root token stood in the file of the shares; it was taken out, and ends with the others"
                );
            }
            // Left behind by `encrypt-existing` that was cut short, or could not reach the store.
            if self.custody.rekey_is_due().map_err(custody_failed)? {
                migrate::replace(&root, self.custody, &shares).await?;
            }
            let below = self.stop.or(laid(&root)).await?;
            // It ends its own token on every way out, and so is not dropped from here.
            let provided = provider.provide(&root, self.face, self.ground, self.stop).await?;
            self.stop.or(credentials::keep(&root, self.face, &below, passwords)).await?;
            self.stop.or(credentials::kuiper(&root, self.face, &below, self.ground)).await?;
            if let Some(pair) = proxy {
                self.stop.or(proxy::upload(&root, pair)).await?;
            }
            // Without a provider nobody has a new token; then the old ones are all there are.
            if provided {
                let swept =
                    self.stop.or(async { Ok::<_, Stopped>(sweep.end(&root, self.face.revoke_root_tokens).await) });
                return told(swept.await?);
            }
            Ok(())
        })
        .await
    }
}

async fn laid<V: Vault>(root: &Bearer<'_, V>) -> Result<boot::provision::Ground, Failure> {
    lay_mounts(root, &Plan::default_mounts()).await.map_err(|e| Failure::of(Code::Refused, &e))
}

async fn asked<T>(work: impl Future<Output = Result<T, client::AskError>>) -> Result<T, Failure> {
    work.await.map_err(|e| Failure::of(Code::Refused, &e))
}

fn told(swept: Swept) -> Result<(), Failure> {
    let Swept { revoked, vanished, spared, failed } = swept;
    tracing::info!(revoked, vanished, spared, "tokens of before have ended");
    match failed {
        0 => Ok(()),
        n => Err(Failure::new(Code::Refused, format!("{n} tokens of before could not be revoked"))
            .hint("the log names them by accessor; run the set-up again, or revoke them by hand")),
    }
}

fn custody_failed(error: CustodyError) -> Failure {
    Failure::of(Code::Refused, &error).hint(error.hint())
}

impl From<Stopped> for Failure {
    fn from(stopped: Stopped) -> Self {
        Self::new(Code::Refused, stopped.to_string()).hint("start it again: it goes on where it stopped")
    }
}

impl From<RootError> for Failure {
    fn from(error: RootError) -> Self {
        Self::new(Code::Refused, host::with_causes(&error)).hint(error.hint())
    }
}

const NAME: &str = "security-secretstore-setup";
/// A store on the same device is there in seconds; one that takes ten minutes is looked at by a person.
const LIMIT: Duration = Duration::from_secs(600);
