//! How long the set-up of EdgeX's 18 services takes beside what OpenBao itself spends on its requests.

use std::collections::HashMap;
use std::time::Instant;

use serde_json::Value;

use crate::bao::{Bao, Setup};
use crate::place::Place;

/// Every request and reply of OpenBao's audit log, paired by their id: the sum of its own times, in seconds, and how
/// many there are.
fn spent(text: &str) -> (f64, usize) {
    let mut began = HashMap::new();
    let (mut sum, mut count) = (0.0, 0);
    for line in text.lines() {
        let Ok(entry) = serde_json::from_str::<Value>(line) else { continue };
        let id = entry["request"]["id"].as_str().unwrap_or_default().to_owned();
        let at = seconds(entry["time"].as_str().unwrap_or_default());
        match entry["type"].as_str() {
            Some("request") => {
                began.insert(id, at);
            }
            Some("response") => {
                if let Some(from) = began.remove(&id) {
                    let took = at - from;
                    sum += if took < 0.0 { took + 86_400.0 } else { took };
                    count += 1;
                }
            }
            _ => {}
        }
    }
    (sum, count)
}

/// Seconds of the day of an RFC 3339 time.
fn seconds(time: &str) -> f64 {
    let clock = time.split('T').nth(1).unwrap_or_default().trim_end_matches('Z');
    clock.split(':').fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().unwrap_or_default())
}

/// `cargo test -p edgekeep --test edgex_setup -- --nocapture figure`; with `--release` for docs/benchmarks.md.
#[test]
fn eighteen_services_take_little_more_than_the_store_itself() {
    let Some(bao) = Bao::with(Setup { audit: true, ..Setup::default() }) else { return };
    let place = Place::new(&bao);
    place.must_set_up();
    assert_eq!(place.services().len(), 18);
    let mut ratios = Vec::new();
    for _ in 0..5 {
        let before = std::fs::metadata(bao.audit_file()).unwrap().len() as usize;
        let begun = Instant::now();
        place.must_set_up();
        let wall = begun.elapsed().as_secs_f64();
        let log = std::fs::read(bao.audit_file()).unwrap();
        let (own, requests) = spent(&String::from_utf8_lossy(&log[before..]));
        assert!(requests > 18 * 8, "the audit log has {requests} requests");
        eprintln!("18 services: {wall:.3} s, of it OpenBao {own:.3} s in {requests} requests, ratio {:.3}", wall / own);
        ratios.push(wall / own);
    }
    ratios.sort_by(f64::total_cmp);
    eprintln!("median ratio {:.3}", ratios[2]);
    // The figure is 1.2 for the release build on an idle machine; a debug build has twice the rest.
    let most = if cfg!(debug_assertions) { 1.4 } else { 1.2 };
    assert!(ratios[2] <= most || !testkit::are_figures_held(), "{ratios:?}");
}
