// C interface to one Verilated board on PCIe, for ctypes: whole packets in and out, and the clock.
//
// A board is a Verilated PcieSimulationTop. Every board owns its Verilator context: boards in one process share
// nothing. A board must be used by one thread at a time. One call of systola_run advances the clock many cycles without
// Python.
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "Vsystola.h"
#include "verilated.h"

#define SYSTOLA_API extern "C" __attribute__((visibility("default")))

namespace {

constexpr int kResetCycles = 4;
constexpr int kLinkCycles = 16;  // longer than the endpoint needs to notice that the link has changed
constexpr uint32_t kStopAtPacket = 1;
constexpr unsigned kPayload256 = 1, kReadRequest512 = 2;  // codes of the Device Control register

// A packet's dwords; the first byte on the wire is in bits 31 to 24.
struct Packet {
    std::vector<uint32_t> dwords;
    bool bar_hit = false;
};

class Board {
   public:
    Board() : top_(&context_, "board") {
        top_.max_payload = kPayload256;
        top_.max_read_request = kReadRequest512;
        top_.bus_master = 1;
        top_.rst = 1;
        for (int cycle = 0; cycle < kResetCycles; ++cycle) step();
        top_.rst = 0;
        set_link(true);
    }

    ~Board() { top_.final(); }

    // Whatever is under way is lost on both sides.
    void set_link(bool up) {
        input_.clear();
        output_.clear();
        partial_.dwords.clear();
        position_ = 0;
        top_.link_up = up;
        for (int cycle = 0; cycle < kLinkCycles; ++cycle) step();
    }

    void set_bus_master(bool on) { top_.bus_master = on; }

    void send(const uint8_t* bytes, size_t size, bool bar_hit) {
        Packet packet;
        packet.bar_hit = bar_hit;
        for (size_t offset = 0; offset + 4 <= size; offset += 4) {
            packet.dwords.push_back(static_cast<uint32_t>(bytes[offset]) << 24 | bytes[offset + 1] << 16 | bytes[offset + 2] << 8 |
                                    bytes[offset + 3]);
        }
        input_.push_back(std::move(packet));
        quiet_ = 0;
    }

    // Returns the size of the next packet, 0 if there is none.
    size_t receive(uint8_t* bytes, size_t room) {
        if (output_.empty()) return 0;
        const std::vector<uint32_t>& dwords = output_.front().dwords;
        const size_t size = 4 * dwords.size();
        for (size_t offset = 0; offset < size && offset < room; ++offset) {
            bytes[offset] = static_cast<uint8_t>(dwords[offset / 4] >> (24 - 8 * (offset % 4)));
        }
        output_.pop_front();
        return size;
    }

    // Runs at most `limit` cycles; stops early at the end of a packet from the board, or after `quiet` cycles without
    // any activity (0: never). Returns the cycles run.
    uint64_t run(uint64_t limit, uint32_t stop, uint64_t quiet) {
        for (uint64_t cycle = 0; cycle < limit; ++cycle) {
            if (quiet && quiet_ >= quiet) return cycle;
            if (step() && (stop & kStopAtPacket)) return cycle + 1;
        }
        return limit;
    }

    uint64_t cycles() const { return cycles_; }
    uint64_t quiet() const { return quiet_; }

   private:
    // One cycle; true when it ended a packet from the board.
    bool step() {
        const bool offered = top_.link_up && !input_.empty();
        top_.rx_valid = offered;
        if (offered) offer(input_.front());
        top_.tx_ready = 1;
        top_.clk = 0;
        top_.eval();  // combinational outputs settle before the edge: a transfer is what both sides see now
        const bool taken = offered && top_.rx_ready;
        const bool received = top_.tx_valid;
        const bool last = received && top_.tx_last;
        if (received && top_.link_up) {
            partial_.dwords.push_back(static_cast<uint32_t>(top_.tx_data));
            if (top_.tx_keep & 2) partial_.dwords.push_back(static_cast<uint32_t>(top_.tx_data >> 32));
        }
        top_.clk = 1;
        top_.eval();
        ++cycles_;
        if (taken) {
            position_ += 2;
            if (position_ >= input_.front().dwords.size()) {
                input_.pop_front();
                position_ = 0;
            }
        }
        quiet_ = offered || received || top_.busy ? 0 : quiet_ + 1;
        if (last && top_.link_up) {
            output_.push_back(std::move(partial_));
            partial_ = Packet();
        }
        return last;
    }

    void offer(const Packet& packet) {
        const size_t size = packet.dwords.size();
        const bool whole = position_ + 1 < size;
        top_.rx_data = packet.dwords[position_] | (whole ? static_cast<uint64_t>(packet.dwords[position_ + 1]) << 32 : 0);
        top_.rx_keep = whole ? 3 : 1;
        top_.rx_first = position_ == 0;
        top_.rx_last = position_ + 2 >= size;
        top_.rx_bar_hit = packet.bar_hit;
    }

    VerilatedContext context_;
    Vsystola top_;
    std::deque<Packet> input_, output_;
    Packet partial_;
    size_t position_ = 0;  // dword of the first packet of input_ that is offered
    uint64_t cycles_ = 0, quiet_ = 0;
};

}  // namespace

SYSTOLA_API Board* systola_create() { return new Board(); }
SYSTOLA_API void systola_destroy(Board* board) { delete board; }
SYSTOLA_API void systola_set_link(Board* board, uint32_t up) { board->set_link(up); }
SYSTOLA_API void systola_set_bus_master(Board* board, uint32_t on) { board->set_bus_master(on); }
SYSTOLA_API void systola_send(Board* board, const uint8_t* bytes, size_t size, uint32_t hit) { board->send(bytes, size, hit); }
SYSTOLA_API size_t systola_receive(Board* board, uint8_t* bytes, size_t room) { return board->receive(bytes, room); }
SYSTOLA_API uint64_t systola_run(Board* board, uint64_t limit, uint32_t stop, uint64_t quiet) { return board->run(limit, stop, quiet); }
SYSTOLA_API uint64_t systola_cycles(const Board* board) { return board->cycles(); }
SYSTOLA_API uint64_t systola_quiet(const Board* board) { return board->quiet(); }
