//! A bare TLS server: what edgekeep's listeners are measured against. It answers every request with the same 400 bytes.
//!
//! `hello_tls ADDRESS CERTIFICATE.pem KEY.pem`; prints the address that it listens at, then serves until it is killed.

use std::convert::Infallible;
use std::error::Error;
use std::io::Write;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, certificate, key] = arguments.as_slice() else {
        return Err("usage: hello_tls ADDRESS CERTIFICATE.pem KEY.pem".into());
    };
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(address, Arc::new(config)))
}

async fn serve(address: &str, config: Arc<rustls::ServerConfig>) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(address).await?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
    let acceptor = TlsAcceptor::from(config);
    loop {
        let (stream, _) = listener.accept().await?;
        let _ = stream.set_nodelay(true);
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                let service = service_fn(|_: Request<hyper::body::Incoming>| async {
                    Ok::<_, Infallible>(
                        Response::builder()
                            .header("content-type", "application/json")
                            .header("cache-control", "no-store")
                            .body(Full::new(Bytes::from_static(&BODY)))
                            .unwrap_or_default(),
                    )
                });
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            }
        });
    }
}

/// As long as the envelope around a secret of 200 bytes, and JSON.
static BODY: [u8; 400] = {
    let mut text = [b'x'; 400];
    text[0] = b'"';
    text[398] = b'"';
    text[399] = b'\n';
    text
};
