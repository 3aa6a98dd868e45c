//! Where a running guest is, for profiles.

use std::ffi::c_char;

use wasmtime_c_api::wasmtime::WasmBacktrace;
use wasmtime_c_api::WasmtimeStoreContextMut;

const NAME_BYTES: usize = 60;

/// `struct native_frame` of the header.
#[repr(C)]
pub struct Frame {
    function_index: u32,
    name: [c_char; NAME_BYTES],
}

fn put_name(frame: &mut Frame, name: &str) {
    let clean = name.bytes().map(|byte| if (0x20..0x7f).contains(&byte) { byte } else { b'?' });
    frame.name = [0; NAME_BYTES];
    for (to, byte) in frame.name[..NAME_BYTES - 1].iter_mut().zip(clean) {
        *to = byte as c_char;
    }
}

/// # Safety
/// `frames` has room for `frame_max`; the context is that of the guest whose epoch callback runs on this thread.
#[no_mangle]
pub unsafe extern "C" fn native_backtrace(
    context: WasmtimeStoreContextMut<'_>,
    frames: *mut Frame,
    frame_max: usize,
) -> usize {
    let body = std::panic::AssertUnwindSafe(|| {
        let trace = WasmBacktrace::force_capture(&context);
        let found = trace.frames().iter().take(frame_max);
        found.enumerate().fold(0, |_, (index, info)| {
            let frame = &mut *frames.add(index);
            frame.function_index = info.func_index();
            put_name(frame, info.func_name().unwrap_or(""));
            index + 1
        })
    });
    std::panic::catch_unwind(body).unwrap_or(0)
}
