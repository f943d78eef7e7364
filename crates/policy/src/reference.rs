//! The rules of lookup and merging once more, as plainly as they can be written, and a comparison with [`Compiled`].
//!
//! It works on the texts of the patterns, knows no sorted stores, and allocates as it likes.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::{Compiled, Identity, Policy};

/// Pattern and capabilities of one block.
type Block = (String, Vec<&'static str>);

/// What all blocks say about the one pattern that decides, or nothing.
fn capabilities(blocks: &[Block], path: &str) -> Vec<&'static str> {
    let mut merged: BTreeMap<&str, Vec<&'static str>> = BTreeMap::new();
    for (pattern, granted) in blocks {
        merged.entry(pattern.strip_prefix('/').unwrap_or(pattern)).or_default().extend(granted);
    }
    let bare = path.strip_suffix('/');
    let exact = |p: &str| merged.keys().copied().find(|k| !is_glob(k) && *k == p);
    let decides = exact(path)
        .or_else(|| exact(bare?))
        .or_else(|| best(merged.keys().copied(), path))
        .or_else(|| best(merged.keys().copied(), bare?));
    let mut granted = decides.map_or_else(Vec::new, |p| merged[p].clone());
    granted.sort_unstable();
    granted.dedup();
    if granted.is_empty() || granted.contains(&"deny") { vec!["deny"] } else { granted }
}

fn is_glob(pattern: &str) -> bool {
    pattern.ends_with('*') || has_plus(pattern)
}

fn has_plus(pattern: &str) -> bool {
    pattern == "+" || pattern.starts_with("+/") || pattern.contains("/+")
}

fn best<'a>(patterns: impl Iterator<Item = &'a str> + Clone, path: &str) -> Option<&'a str> {
    let fitting_plus = patterns.clone().filter(|p| has_plus(p) && plus_fits(p, path));
    let prefix = patterns
        .filter(|p| !has_plus(p) && p.ends_with('*') && path.starts_with(&p[..p.len() - 1]))
        .max_by_key(|p| p.len());
    fitting_plus.chain(prefix).reduce(|a, b| if closer(b, a) { b } else { a })
}

fn plus_fits(pattern: &str, path: &str) -> bool {
    let have: Vec<&str> = path.split('/').collect();
    match pattern.strip_suffix('*') {
        None => {
            let want: Vec<&str> = pattern.split('/').collect();
            want.len() == have.len() && want.iter().zip(&have).all(|(w, h)| *w == "+" || w == h)
        }
        Some(start) => {
            let want: Vec<&str> = start.split('/').collect();
            let Some((last, firsts)) = want.split_last() else { return false };
            have.len() >= want.len()
                && firsts.iter().zip(&have).all(|(w, h)| *w == "+" || w == h)
                && (*last == "+" || have[firsts.len()].starts_with(last))
        }
    }
}

/// The five steps, one after the other.
fn closer(a: &str, b: &str) -> bool {
    let bare = |p: &'_ str| p.strip_suffix('*').unwrap_or(p).to_owned();
    let wildcard_at = |p: &str| if has_plus(p) { p.find('+').unwrap() } else { p.len() - 1 };
    if wildcard_at(a) != wildcard_at(b) {
        return wildcard_at(a) > wildcard_at(b);
    }
    if a.ends_with('*') != b.ends_with('*') {
        return b.ends_with('*');
    }
    let plusses = |p: &str| if has_plus(p) { bare(p).split('/').filter(|s| *s == "+").count() } else { 0 };
    if plusses(a) != plusses(b) {
        return plusses(a) < plusses(b);
    }
    if bare(a).len() != bare(b).len() {
        return bare(a).len() > bare(b).len();
    }
    bare(a) > bare(b)
}

fn pattern() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec!["a", "b", "ab", "abc", "+", "+", "a+", "", "*"]);
    (prop::collection::vec(segment, 1..5), prop::bool::ANY, prop::bool::weighted(0.1))
        .prop_map(|(segments, open, slash)| {
            let text = segments.join("/");
            format!("{}{text}{}", if slash { "/" } else { "" }, if open { "*" } else { "" })
        })
        .prop_filter("refused when parsed", |p| !p.contains("+*"))
}

fn block() -> impl Strategy<Value = Block> {
    const WORDS: [&str; 8] = ["create", "delete", "deny", "list", "patch", "read", "sudo", "update"];
    (pattern(), prop::collection::vec(prop::sample::select(WORDS.to_vec()), 1..3))
}

fn path() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec!["a", "b", "ab", "abc", "abcd", "a+", "+", "*"]);
    (prop::collection::vec(segment, 1..5), prop::bool::ANY)
        .prop_map(|(segments, folder)| segments.join("/") + if folder { "/" } else { "" })
}

fn compile(blocks: &[Block], policies: usize) -> Compiled {
    let mut texts = vec![String::from("# none\n"); policies];
    for (i, (path, words)) in blocks.iter().enumerate() {
        texts[i % policies] += &format!("path {path:?} {{ capabilities = {words:?} }}\n");
    }
    let policies: Vec<_> = texts.iter().map(|t| Policy::parse("p", t).unwrap()).collect();
    Compiled::merge(&policies, &Identity::default()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn compiled_rules_decide_as_the_plain_ones(
        blocks in prop::collection::vec(block(), 0..12),
        paths in prop::collection::vec(path(), 1..8),
        policies in 1_usize..4,
    ) {
        let compiled = compile(&blocks, policies);
        for path in paths {
            prop_assert_eq!(compiled.capabilities(&path), capabilities(&blocks, &path), "{} by {:?}", path, blocks);
        }
    }

    #[test]
    fn the_order_of_policies_and_blocks_means_nothing(
        blocks in prop::collection::vec(block(), 0..8),
        path in path(),
    ) {
        let there = compile(&blocks, 2).capabilities(&path);
        let reversed: Vec<_> = blocks.into_iter().rev().collect();
        prop_assert_eq!(there, compile(&reversed, 3).capabilities(&path));
    }
}
