//! Pre-initialises a module: runs its own start-up once and writes the memory it left into a new module.
//!
//! The module runs alone here.  Of its imports the clocks say 0, randomness is zeros, and everything else traps, so
//! what is in the snapshot depends on the module only: the same bytes in give the same bytes out.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use wasmtime_c_api::wasmtime::{Caller, Config, Engine, Error, Extern, Instance, Linker, Memory, Module, Store, Val};
use wasmtime_wizer::{InstanceState, SnapshotVal, ValType, Wizer};

use crate::border::{guard, Failure, Outcome, Status, Text};

const WASI: &str = "wasi_snapshot_preview1";
const STACK_BYTES: usize = 4 << 20;
const CLOCK_NS: u64 = 0;

struct State {
    store: Store<()>,
    instance: Instance,
}

impl InstanceState for State {
    async fn global_get(&mut self, name: &str, _: ValType) -> SnapshotVal {
        let value = self.instance.get_global(&mut self.store, name).map(|global| global.get(&mut self.store));
        match value {
            Some(Val::I32(value)) => SnapshotVal::I32(value),
            Some(Val::I64(value)) => SnapshotVal::I64(value),
            Some(Val::F32(bits)) => SnapshotVal::F32(bits),
            Some(Val::F64(bits)) => SnapshotVal::F64(bits),
            Some(Val::V128(value)) => SnapshotVal::V128(value.as_u128()),
            other => panic!("global {name} cannot be kept: {other:?}"),
        }
    }

    async fn memory_contents(&mut self, name: &str, contents: impl FnOnce(&[u8]) + Send) {
        let memory = self.instance.get_memory(&mut self.store, name).expect("the instrumented module exports it");
        contents(memory.data(&self.store));
    }
}

fn invalid(error: impl std::fmt::Display) -> Failure {
    Failure::new(Status::Invalid, error.to_string())
}

fn memory_of(caller: &mut Caller<'_, ()>) -> Result<Memory, Error> {
    caller
        .get_export("memory")
        .and_then(Extern::into_memory)
        .ok_or_else(|| Error::msg("the module exports no memory"))
}

/// Time stands at 0 and randomness is zeros: the module takes both anew in each call.
fn define_wasi(linker: &mut Linker<()>) -> Result<(), Error> {
    let put_time = |mut caller: Caller<'_, ()>, _clock: i32, _precision: i64, to: i32| -> Result<i32, Error> {
        memory_of(&mut caller)?.write(&mut caller, to as u32 as usize, &CLOCK_NS.to_le_bytes())?;
        Ok(0)
    };
    linker.func_wrap(WASI, "clock_time_get", put_time)?;
    let put_zeros = |mut caller: Caller<'_, ()>, to: i32, bytes: i32| -> Result<i32, Error> {
        let memory = memory_of(&mut caller)?;
        let start = to as u32 as usize;
        let range = start..start.saturating_add(bytes as u32 as usize);
        memory.data_mut(&mut caller).get_mut(range).ok_or_else(|| Error::msg("an address outside the memory"))?.fill(0);
        Ok(0)
    };
    linker.func_wrap(WASI, "random_get", put_zeros)?;
    Ok(())
}

fn start(wasm: &[u8], init: &str) -> Result<State, Error> {
    let mut config = Config::new();
    config.max_wasm_stack(STACK_BYTES).async_stack_size(2 * STACK_BYTES);
    let engine = Engine::new(&config)?;
    let module = Module::new(&engine, wasm)?;
    let mut linker = Linker::new(&engine);
    define_wasi(&mut linker)?;
    linker.define_unknown_imports_as_traps(&module)?;
    let mut store = Store::new(&engine, ());
    let instance = linker.instantiate(&mut store, &module)?;
    for name in ["_initialize", init] {
        if name == init || instance.get_export(&mut store, name).is_some() {
            instance.get_typed_func::<(), ()>(&mut store, name)?.call(&mut store, ())?;
        }
    }
    Ok(State { store, instance })
}

/// Runs a future that never waits.
fn finish<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the state of an instance is there at once"),
    }
}

pub fn snapshot(wasm: &[u8], init: &str) -> Outcome<Vec<u8>> {
    let mut wizer = Wizer::new();
    wizer.init_func(init);
    let (module, instrumented) = wizer.instrument(wasm).map_err(|error| invalid(format!("{error:#}")))?;
    let mut state = start(&instrumented, init).map_err(|error| invalid(format!("{error:#}")))?;
    finish(wizer.snapshot(&module, &mut state)).map_err(|error| invalid(format!("{error:#}")))
}

/// # Safety
/// As the header says: pointers are valid for the call, the results are places for one value each.
#[no_mangle]
pub unsafe extern "C" fn native_snapshot(
    wasm: Text,
    init: Text,
    out: *mut *mut u8,
    out_bytes: *mut usize,
    error: *mut *mut std::ffi::c_char,
) -> Status {
    guard(error, || {
        let bytes = snapshot(wasm.as_bytes(), init.as_str("the name of the start-up function")?)?;
        let bytes = bytes.into_boxed_slice();
        *out_bytes = bytes.len();
        *out = Box::into_raw(bytes).cast();
        Ok(Status::Ok)
    })
}

/// # Safety
/// What `native_snapshot` gave, both values, once; or NULL.
#[no_mangle]
pub unsafe extern "C" fn native_snapshot_free(bytes: *mut u8, count: usize) {
    if !bytes.is_null() {
        drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(bytes, count)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (module (memory (export "memory") 1) (global $g (mut i32) (i32.const 0))
    ///   (func (export "init") i32.const 8 i32.const 42 i32.store))
    const SMALL: &[u8] = &[
        0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, 4, 1, 0x60, 0, 0, 3, 2, 1, 0, 5, 3, 1, 0, 1, 7, 17, 2, 6, b'm', b'e', b'm',
        b'o', b'r', b'y', 2, 0, 4, b'i', b'n', b'i', b't', 0, 0, 10, 11, 1, 9, 0, 0x41, 8, 0x41, 42, 0x36, 2, 0, 0x0b,
    ];

    #[test]
    fn memory_after_start_up_is_in_the_new_module_and_the_function_is_gone() {
        let out = snapshot(SMALL, "init").ok().expect("it runs");
        let module = Module::new(&Engine::default(), &out).expect("it is a module");
        assert!(module.get_export("init").is_none() && module.get_export("memory").is_some());
        let mut store = Store::new(module.engine(), ());
        let instance = Instance::new(&mut store, &module, &[]).expect("it starts");
        let memory = instance.get_memory(&mut store, "memory").expect("it is exported");
        assert_eq!(memory.data(&store)[8], 42);
    }

    #[test]
    fn a_function_that_is_not_there_is_an_error() {
        assert!(snapshot(SMALL, "other").is_err());
        assert!(snapshot(b"\0asm", "init").is_err());
    }
}
