//! Copies wasmtime's C headers, which its own build script configures to match the enabled features, to the folder
//! that the C build names in NEXUS_NATIVE_INCLUDE_DIR.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=NEXUS_NATIVE_INCLUDE_DIR");
    let source = env::var("DEP_WASMTIME_C_API_INCLUDE")?;
    if let Some(target) = env::var_os("NEXUS_NATIVE_INCLUDE_DIR") {
        copy_tree(Path::new(&source), &PathBuf::from(target))?;
    }
    Ok(())
}
