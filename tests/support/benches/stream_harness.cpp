// Drives one Verilated block between two streams that are always ready, for ctypes.
//
// The block has the ports i_valid, i_payload, o_valid, o_payload and constants, at most 64 bits or wide. Payloads pass as
// little-endian bytes, an item each in as many bytes as Verilator stores the port in.
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "Vsystola.h"
#include "verilated.h"

#define SYSTOLA_API extern "C" __attribute__((visibility("default")))

namespace {

template <typename Port>
void put(Port& port, const uint8_t* bytes) {
    std::memcpy(static_cast<void*>(&port), bytes, sizeof(Port));
}

}  // namespace

SYSTOLA_API size_t stream_item_bytes() { return sizeof(Vsystola::i_payload); }
SYSTOLA_API size_t stream_result_bytes() { return sizeof(Vsystola::o_payload); }
SYSTOLA_API size_t stream_constants_bytes() { return sizeof(Vsystola::constants); }

// Offers item k in cycle starts[k], counted from the end of reset, and runs the block for `cycles` cycles. Between items the
// payload is the complement of the item before. Stores at most `limit` results and the cycle of each; returns how many there were.
SYSTOLA_API size_t stream_run(const uint8_t* constants, const uint8_t* items, const uint64_t* starts, size_t count,
                              uint64_t cycles, uint8_t* results, uint64_t* ends, size_t limit) {
    VerilatedContext context;
    Vsystola block(&context);
    constexpr size_t kItem = sizeof(block.i_payload), kResult = sizeof(block.o_payload);
    auto step = [&] {
        block.clk = 1;
        block.eval();
        block.clk = 0;
        block.eval();
    };
    put(block.constants, constants);
    block.clk = 0;
    block.i_valid = 0;
    block.rst = 1;
    for (int cycle = 0; cycle < 4; ++cycle) step();
    block.rst = 0;

    size_t next = 0, found = 0;
    for (uint64_t cycle = 0; cycle < cycles; ++cycle) {
        block.i_valid = next < count && starts[next] == cycle;
        if (block.i_valid) {
            put(block.i_payload, items + next++ * kItem);
        } else if (next > 0) {
            uint8_t garbage[kItem];
            for (size_t byte = 0; byte < kItem; ++byte) garbage[byte] = ~items[(next - 1) * kItem + byte];
            put(block.i_payload, garbage);
        }
        block.eval();
        if (block.o_valid) {
            if (found < limit) {
                std::memcpy(results + found * kResult, &block.o_payload, kResult);
                ends[found] = cycle;
            }
            ++found;
        }
        step();
    }
    block.final();
    return found;
}
