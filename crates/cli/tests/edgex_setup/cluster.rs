//! Other shapes of OpenBao: storage in memory (2.7 has none in files any more), and three nodes of which the leader
//! dies.

use serde_json::json;

use crate::bao::{Authority, Bao, Setup, Storage};
use crate::place::Place;
use crate::runs::only_our_root;
use crate::tls::behind_tls;

#[test]
fn storage_in_memory_and_one_node_of_raft_with_the_switches_of_old_on_and_off() {
    for storage in [Storage::Memory, Storage::Raft] {
        for legacy in [false, true] {
            let Some(mut bao) = Bao::with(Setup { storage, legacy, ..Setup::default() }) else { return };
            let place = Place::small(&bao);
            place.must_set_up();
            place.must_set_up();
            if storage == Storage::Raft {
                bao.restart();
                place.must_set_up();
            }
            assert!(bao.knows(&place.token("core-data")), "{storage:?} {legacy}");
            only_our_root(&place, &bao);
        }
    }
}

/// Three nodes behind TLS. The set-up works through a standby; the leader is killed at moments spread over it, another
/// one leads, and the same command, as a container's restart gives it, ends provisioned.
#[test]
fn three_nodes_and_the_leader_is_killed_in_the_middle_of_provisioning() {
    let authority = Authority::new();
    // Three nodes of a busy machine must not miss each other's heartbeats.
    let setup = Setup { authority: Some(authority.clone()), election: Some(3), ..Setup::default() };
    let Some(first) = Bao::with(setup.clone()) else { return };
    let mut place = behind_tls(Place::small(&first), &authority);
    place.must_set_up();
    let join = Some(first.ip.clone());
    let mut nodes = vec![first];
    for _ in 0..2 {
        let Some(node) = Bao::with(Setup { join: join.clone(), ..setup.clone() }) else { return };
        // It has joined when it knows that it is sealed; the set-up that finds it so unseals it.
        node.until(&[503]);
        place = place.with("SECRETSTORE_HOST", &node.ip);
        set_up_at_last(&place);
        node.until(&[429, 200]);
        nodes.push(node);
    }
    // A node that has just joined has no vote for some seconds.
    all_vote(&place, &nodes[0]);
    let begun = std::time::Instant::now();
    place.must_set_up();
    let whole = begun.elapsed();

    for round in 1..=2 {
        let leader = leader(&nodes);
        let through = (leader + 1) % 3;
        place = place.with("SECRETSTORE_HOST", &nodes[through].ip);
        let mut run = place.begin();
        std::thread::sleep(whole.mul_f64(f64::from(round) / 3.0));
        nodes[leader].stop();
        let mut code = run.wait().unwrap().code();
        let mut runs = 1;
        let died = std::time::Instant::now();
        while code != Some(0) {
            assert!(died.elapsed().as_secs() < 180, "round {round}: not provisioned after {runs} runs");
            let (again, said) = place.set_up();
            if again != 0 {
                eprintln!(
                    "round {round}, run {runs}: {}",
                    said.lines().filter(|l| l.starts_with("error")).collect::<String>()
                );
            }
            (code, runs) = (Some(again), runs + 1);
        }
        eprintln!("round {round}: the leader died, {runs} runs");
        let node = &nodes[through];
        for service in place.services() {
            node.until_known(&place.token(&service));
        }
        until_forwarded(node, &place.token("core-data"));
        only_our_root(&place, node);
        // It comes back sealed, and a set-up that is pointed at it opens it.
        nodes[leader].restart();
        nodes[leader].until(&[503]);
        place = place.with("SECRETSTORE_HOST", &nodes[leader].ip);
        set_up_at_last(&place);
        nodes[leader].until(&[429, 200]);
        all_vote(&place, &nodes[leader]);
    }
}

/// The same command again and again, as a container's restart gives it: three nodes may elect at any moment.
fn set_up_at_last(place: &Place) {
    let begun = std::time::Instant::now();
    loop {
        let (code, said) = place.set_up();
        if code == 0 {
            return;
        }
        assert!(begun.elapsed().as_secs() < 180, "not provisioned: {said}");
    }
}

/// The node that leads; between two elections there is none.
fn leader(nodes: &[Bao]) -> usize {
    let begun = std::time::Instant::now();
    loop {
        if let Some(leader) = nodes.iter().position(|n| n.health() == 200) {
            return leader;
        }
        assert!(begun.elapsed().as_secs() < 120, "none of the nodes leads");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

/// Writes a secret through a node that does not lead. It says where the leader is, and no more, until it has found its
/// own way there.
fn until_forwarded(node: &Bao, token: &str) {
    let begun = std::time::Instant::now();
    loop {
        match node.call("POST", "secret/edgex/core-data/x", Some(token), Some(json!({"n": "1"}))).0 {
            204 => return,
            // Between two leaders it knows none.
            status => {
                assert!([307, 429, 500, 503].contains(&status) && begun.elapsed().as_secs() < 120, "status {status}")
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

fn all_vote(place: &Place, node: &Bao) {
    place.as_root(node, |root| {
        for _ in 0..300 {
            let (_, answer) = node.call("GET", "sys/storage/raft/configuration", Some(root), None);
            let servers = answer["data"]["config"]["servers"].as_array().cloned().unwrap_or_default();
            if servers.len() == 3 && servers.iter().all(|s| s["voter"] == json!(true)) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        panic!("not all nodes vote");
    });
}
