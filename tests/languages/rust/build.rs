//! Generates the messages with prost, from the folder that ONRECORD_PROTOS names. Debian has no tonic: services are left out.
use std::{env, io, path::{Path, PathBuf}};

fn protos(folder: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in folder.read_dir()? {
        let path = entry?.path();
        if path.is_dir() {
            protos(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            found.push(path);
        }
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let root = env::var("ONRECORD_PROTOS").expect("ONRECORD_PROTOS names the folder of the protos");
    let mut found = Vec::new();
    protos(&Path::new(&root).join("onrecord"), &mut found)?;
    prost_build::Config::new().include_file("onrecord.rs").compile_protos(&found, &[root])
}
