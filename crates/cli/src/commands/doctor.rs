//! `edgekeep doctor`: the protections that are lacking, from the machine itself and from the edgekeep that runs on it.

use std::path::{Path, PathBuf};

use clap::Args;
use host::OsDisk;
use serde_json::Value;

use super::admin;
use crate::failure::{Code, Failure};

/// Example: edgekeep doctor
#[derive(Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    place: admin::Place,
    /// Look at what this configuration would do, in place of the edgekeep that runs.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) async fn run(doctor: Doctor) -> Result<(), Failure> {
    let mut lines = Vec::new();
    let mut unreached = None;
    if let Some(file) = &doctor.config {
        let config = super::up::load(file, None, None)?;
        heading(&mut lines, &format!("by the plan of {}", file.display()), &crate::lacking::of_plan(&config.plan));
    } else {
        match admin::status(&doctor.place).await {
            Ok(status) => running(&mut lines, &status),
            Err(e) => unreached = Some(e),
        }
    }
    heading(&mut lines, "by this machine", &crate::lacking::of_machine(&OsDisk, Path::new("/")));
    crate::output::line(&lines.join("\n"));
    match unreached {
        None => Ok(()),
        Some(e) => Err(Failure { code: Code::NotReady, ..e }),
    }
}

fn running(lines: &mut Vec<String>, status: &Value) {
    let text = |key: &str| status[key].as_str().unwrap_or("unknown").to_owned();
    lines.push(format!("edgekeep is {} (profile {})", text("state"), text("profile")));
    if let Some(reason) = status["reason"].as_str() {
        lines.push(format!("  because: {reason}"));
    }
    for gate in status["gates"].as_array().into_iter().flatten() {
        let name = gate["name"].as_str().unwrap_or("?");
        let state = if gate["open"].as_bool() == Some(true) { "open" } else { "shut" };
        let waits = gate["waits_for"].as_str().map(|w| format!(", waits for {w}")).unwrap_or_default();
        lines.push(format!("  gate {name}: {state}{waits}"));
    }
    if let Some(memory) = status["memory"].as_str() {
        lines.push(format!("memory: {memory}"));
    }
    let lacking: Vec<String> =
        status["lacking"].as_array().into_iter().flatten().filter_map(|l| Some(l.as_str()?.to_owned())).collect();
    heading(lines, "by the running edgekeep", &lacking);
}

fn heading(lines: &mut Vec<String>, whose: &str, lacking: &[String]) {
    if lacking.is_empty() {
        lines.push(format!("protections lacking {whose}: none that this command can see"));
        return;
    }
    lines.push(format!("protections lacking {whose}:"));
    lines.extend(lacking.iter().map(|l| format!("  - {l}")));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tells_what_the_running_edgekeep_tells() {
        let mut lines = Vec::new();
        running(
            &mut lines,
            &json!({"state": "sealed", "reason": "no slot opens", "profile": "production",
                "gates": [{"name": "ready", "open": false, "waits_for": "store"}], "memory": "locked", "lacking": ["x"]}),
        );
        assert_eq!(
            lines,
            [
                "edgekeep is sealed (profile production)",
                "  because: no slot opens",
                "  gate ready: shut, waits for store",
                "memory: locked",
                "protections lacking by the running edgekeep:",
                "  - x"
            ]
        );
    }
}
