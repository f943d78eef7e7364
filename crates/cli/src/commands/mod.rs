//! The commands, a file each.

mod admin;
mod beside;
pub(crate) mod client;
mod doctor;
mod env;
mod erase;
mod generalize;
pub(crate) mod ikm;
mod operator;
mod provision;
mod reprovision;
mod seal;
mod setup;
mod slots;
mod up;
mod wait;

use clap::Subcommand;

use crate::failure::Failure;

#[derive(Subcommand)]
#[expect(clippy::large_enum_variant, reason = "one of it is made in the life of the process")]
pub(crate) enum Command {
    /// Make everything ready, unseal, serve, and open the gates.
    Up(up::Up),
    /// Look at the device and write a commented edgekeep.toml.
    Setup(setup::Setup),
    /// Wait until a gate is open.
    Wait(wait::Wait),
    /// Start one of EdgeX's containers: wait for its gate, write its configuration, become its user, run its program.
    Entry(crate::edgex::Entry),
    /// Print the variables that point an unmodified client at edgekeep.
    Env(env::Env),
    /// Say what protects this device, and what does not.
    Doctor(doctor::Doctor),
    /// Drop the keys: the store stays sealed until the next start, or until it is recovered. With a command: see to
    /// what it is sealed by.
    Seal(seal::Seal),
    /// Unseal with the recovery key.
    Recover(admin::Recover),
    /// Key material: make a hook for EdgeX, try a vendor's, see what is left of the releases.
    Ikm(ikm::Ikm),
    /// Make the store of a device that leaves the factory, with nobody present, and print what is to be kept of it.
    Provision(provision::Provision),
    /// Take away whatever would make two devices of one image alike, before the image is captured.
    Generalize(generalize::Generalize),
    /// What takes the recovery key of an open store: a root token, another recovery key.
    #[command(subcommand)]
    Operator(operator::Operator),
    /// Destroy everything that opens the store of the running edgekeep, for good, and print a signed receipt.
    Erase(erase::Erase),
    /// Throw away a store that cannot be opened, so that `up` makes a new one.
    Reprovision(reprovision::Reprovision),
    #[command(hide = true)]
    Keeper(beside::Keeper),
    #[command(hide = true)]
    Guard(beside::Guard),
    #[command(hide = true)]
    MakeStore(beside::MakeStore),
    #[command(flatten)]
    Client(client::ClientCommand),
}

pub(crate) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Up(up) => up::run(up),
        Command::Setup(setup) => setup::run(&setup),
        Command::Wait(wait) => on_runtime(wait::run(wait)),
        Command::Entry(entry) => crate::edgex::entry(entry),
        Command::Env(env) => env::run(&env),
        Command::Doctor(doctor) => on_runtime(doctor::run(doctor)),
        Command::Seal(seal) => seal::run(seal),
        Command::Recover(recover) => on_runtime(admin::recover(recover)),
        Command::Ikm(ikm) => ikm::run(&ikm),
        Command::Provision(provision) => provision::run(&provision),
        Command::Generalize(generalize) => generalize::run(&generalize),
        Command::Operator(operator) => on_runtime(operator::run(operator)),
        Command::Erase(erase) => on_runtime(erase::run(erase)),
        Command::Reprovision(reprovision) => reprovision::run(&reprovision),
        Command::Keeper(keeper) => beside::run_keeper(&keeper),
        Command::Guard(guard) => on_runtime(beside::run_guard(guard)),
        Command::MakeStore(make) => on_runtime(beside::run_maker(make)),
        Command::Client(command) => on_runtime(client::run(command)),
    }
}

/// Commands are short: one thread is enough.
fn on_runtime(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    on_runtime_with(work)
}

/// As [`on_runtime`], with what came of it.
fn on_runtime_with<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::fault(format!("the asynchronous runtime does not start: {e}")))?
        .block_on(work)
}
