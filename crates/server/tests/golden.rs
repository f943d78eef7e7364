//! Every byte of a reply, against `tests/golden/http`: a file holds a request, a line `----`, and the reply to it.
//! Carriage returns are left out of both. `EDGEKEEP_BLESS=1` writes the replies anew, and the difference is the review.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // golden files are rewritten in place

mod common;

use std::path::Path;

use common::*;
use server::{Limits, Security};

#[tokio::test]
async fn replies_are_what_they_were() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/http");
    let sealed = Bench::sealed(Security::DangerPlainHttp, Limits::default());
    let open = Bench::plain(Limits::default());
    let mut files: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 20, "the exchanges are in {}", dir.display());
    let mut differing = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let (request, wanted) = text.split_once("\n----\n").unwrap_or((text.trim_end_matches("\n----"), ""));
        let (head, body) = request.split_once("\n\n").unwrap_or((request, ""));
        let mut sent = head.trim_end().replace('\n', "\r\n");
        if !body.is_empty() {
            sent.push_str(&format!("\r\ncontent-length: {}", body.len()));
        }
        sent.push_str("\r\nconnection: close\r\n\r\n");
        sent.push_str(body);
        let name = file.file_name().unwrap().to_str().unwrap();
        let said = if name.starts_with("sealed") {
            to_the_end(sealed.admin().await, sent.as_bytes()).await
        } else {
            to_the_end(open.connect().await, sent.as_bytes()).await
        };
        let said = said.replace('\r', "");
        if said != wanted {
            if std::env::var_os("EDGEKEEP_BLESS").is_some() {
                std::fs::write(&file, format!("{request}\n----\n{said}")).unwrap();
            } else {
                differing.push(format!("{name}: wanted\n{wanted}\ngot\n{said}"));
            }
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}
