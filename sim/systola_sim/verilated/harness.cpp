// C interface to one Verilated board, for ctypes.
//
// A board is a Verilated SimulationTop with a host at its byte streams or, independently of the gateware's UART, a
// bit-level model of a host's UART at its pins. Every board owns its Verilator context: boards in one process share
// nothing. A board must be used by one thread at a time. One call of systola_run advances the clock many cycles without
// Python.
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>

#include "Vsystola.h"
#include "verilated.h"

#define SYSTOLA_API extern "C" __attribute__((visibility("default")))

namespace {

// Time in 1/65536 clock cycles, so that a host's bit need not be a whole number of the board's cycles.
using Ticks = int64_t;
constexpr Ticks kCycle = 1 << 16;

constexpr int kFrameBits = 10;  // start, eight data bits with the least significant first, stop
constexpr int kResetCycles = 4;

enum StopFlags : uint32_t { kStopAtByte = 1, kStopAtDelimiter = 2 };

class HostTransmitter {
   public:
    explicit HostTransmitter(Ticks bit) : bit_(bit) {}

    bool active() const { return remaining_ > 0; }
    bool level() const { return remaining_ == 0 || (frame_ & 1); }

    void start(uint8_t byte) {
        frame_ = 1u << (kFrameBits - 1) | static_cast<uint32_t>(byte) << 1;
        remaining_ = kFrameBits;
    }

    void step() {
        if (remaining_ == 0) {
            elapsed_ = 0;
            return;
        }
        // What is left of a cycle counts for the next bit: back-to-back bytes keep the host's baud rate exactly.
        for (elapsed_ += kCycle; elapsed_ >= bit_ && remaining_ > 0; elapsed_ -= bit_) {
            frame_ >>= 1;
            --remaining_;
        }
    }

   private:
    Ticks bit_, elapsed_ = 0;
    uint32_t frame_ = 1;
    int remaining_ = 0;
};

class HostReceiver {
   public:
    explicit HostReceiver(Ticks bit) : bit_(bit) {}

    bool active() const { return position_ >= 0; }
    uint64_t framing_errors() const { return framing_errors_; }

    // One cycle with the line at `level`; true when `byte` is complete.
    bool step(bool level, uint8_t& byte) {
        const bool falling = previous_ && !level;
        previous_ = level;
        if (position_ < 0) {
            if (falling) {
                position_ = 0;
                countdown_ = bit_ / 2;  // sample in the middle of the start bit, then every bit
            }
            return false;
        }
        countdown_ -= kCycle;
        if (countdown_ > 0) return false;
        countdown_ += bit_;
        if (position_ == 0 && level) {  // a glitch, not a start bit
            ++framing_errors_;
            position_ = -1;
            return false;
        }
        if (position_ < kFrameBits - 1) {
            shift_ = static_cast<uint8_t>(shift_ >> 1 | (level ? 0x80 : 0));  // the start bit is shifted out again
            ++position_;
            return false;
        }
        position_ = -1;
        if (!level) {  // no stop bit
            ++framing_errors_;
            return false;
        }
        byte = shift_;
        return true;
    }

   private:
    Ticks bit_, countdown_ = 0;
    int position_ = -1;  // bit of the frame to be sampled next, -1 between frames
    bool previous_ = true;
    uint8_t shift_ = 0;
    uint64_t framing_errors_ = 0;
};

class Board {
   public:
    Board(uint32_t divisor, Ticks bit)
        : top_(&context_, "board"), uart_(divisor != 0), transmitter_(bit), receiver_(bit) {
        top_.select_uart = uart_;
        top_.uart_divisor = divisor;
        top_.uart_rx = 1;
        reset();
    }

    ~Board() { top_.final(); }

    void reset() {
        top_.rx_valid = 0;
        top_.tx_ready = 0;
        top_.rst = 1;
        for (int cycle = 0; cycle < kResetCycles; ++cycle) clock();
        top_.rst = 0;
        quiet_ = 0;
    }

    void write(const uint8_t* bytes, size_t size) {
        input_.insert(input_.end(), bytes, bytes + size);
        quiet_ = 0;
    }

    size_t read(uint8_t* bytes, size_t size) {
        size_t count = 0;
        for (; count < size && !output_.empty(); ++count) {
            bytes[count] = output_.front();
            output_.pop_front();
        }
        return count;
    }

    // Runs at most `limit` cycles; stops early at a byte, at a zero byte, or after `quiet` cycles without any activity
    // (0: never). Returns the cycles run.
    uint64_t run(uint64_t limit, uint32_t stop, uint64_t quiet) {
        for (uint64_t cycle = 0; cycle < limit; ++cycle) {
            if (quiet && quiet_ >= quiet) return cycle;
            uint8_t byte = 0;
            const bool received = uart_ ? step_uart(byte) : step_streams(byte);
            if (!received) continue;
            output_.push_back(byte);
            if ((stop & kStopAtByte) || ((stop & kStopAtDelimiter) && byte == 0)) return cycle + 1;
        }
        return limit;
    }

    uint64_t cycles() const { return cycles_; }
    uint64_t quiet() const { return quiet_; }
    size_t unsent() const { return input_.size() + (transmitter_.active() ? 1 : 0); }
    uint64_t framing_errors() const { return receiver_.framing_errors(); }

   private:
    void clock() {
        top_.clk = 0;
        top_.eval();
        top_.clk = 1;
        top_.eval();
        ++cycles_;
    }

    bool step_streams(uint8_t& byte) {
        const bool offered = !input_.empty();
        top_.rx_valid = offered;
        if (offered) top_.rx_data = input_.front();
        top_.tx_ready = 1;
        top_.clk = 0;
        top_.eval();  // combinational outputs settle before the edge: a transfer is what both sides see now
        const bool taken = offered && top_.rx_ready;
        const bool received = top_.tx_valid;
        byte = top_.tx_data;
        top_.clk = 1;
        top_.eval();
        ++cycles_;
        if (taken) input_.pop_front();
        count_quiet(offered || received);
        return received;
    }

    bool step_uart(uint8_t& byte) {
        if (!transmitter_.active() && !input_.empty()) {
            transmitter_.start(input_.front());
            input_.pop_front();
        }
        top_.uart_rx = transmitter_.level();
        const bool sending = transmitter_.active();
        transmitter_.step();
        clock();
        const bool received = receiver_.step(top_.uart_tx, byte);
        count_quiet(sending || receiver_.active() || received);
        return received;
    }

    void count_quiet(bool activity) { quiet_ = activity || top_.busy ? 0 : quiet_ + 1; }

    VerilatedContext context_;
    Vsystola top_;
    const bool uart_;
    HostTransmitter transmitter_;
    HostReceiver receiver_;
    std::deque<uint8_t> input_, output_;
    uint64_t cycles_ = 0, quiet_ = 0;
};

}  // namespace

// divisor: cycles a bit of the board's UART, 0 for the byte streams; bit: the host's bit in 1/65536 cycles.
SYSTOLA_API Board* systola_create(uint32_t divisor, int64_t bit) { return new Board(divisor, bit); }
SYSTOLA_API void systola_destroy(Board* board) { delete board; }
SYSTOLA_API void systola_reset(Board* board) { board->reset(); }
SYSTOLA_API void systola_write(Board* board, const uint8_t* bytes, size_t size) { board->write(bytes, size); }
SYSTOLA_API size_t systola_read(Board* board, uint8_t* bytes, size_t size) { return board->read(bytes, size); }
SYSTOLA_API uint64_t systola_run(Board* board, uint64_t limit, uint32_t stop, uint64_t quiet) { return board->run(limit, stop, quiet); }
SYSTOLA_API uint64_t systola_cycles(const Board* board) { return board->cycles(); }
SYSTOLA_API uint64_t systola_quiet(const Board* board) { return board->quiet(); }
SYSTOLA_API size_t systola_unsent(const Board* board) { return board->unsent(); }
SYSTOLA_API uint64_t systola_framing_errors(const Board* board) { return board->framing_errors(); }
