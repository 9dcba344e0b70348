//! Generates the messages, and with feature `rpc` the service stubs. protox reads the .proto, so protoc is not needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/session.proto");
    let files = protox::compile(["proto/session.proto"], ["proto"])?;
    let rpc = std::env::var_os("CARGO_FEATURE_RPC").is_some();
    // What a block is read into is not copied once more.
    let data = ".hyperflow.v1alpha1.BlockPart.data";
    tonic_prost_build::configure().bytes(data).build_client(rpc).build_server(rpc).compile_fds(files)?;
    Ok(())
}
