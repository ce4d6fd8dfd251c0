// One processing element (PE) of an output-stationary array: seven registers, a multiplier and an adder.
//
// At every clock edge, from the values before the edge:
//
//   1. activation, swap and drain arrive from the left, a weight and an out value from above;
//   2. if drain arrives: out_pass <- out;
//   3. if swap arrives: out <- acc; else, if drain arrives: out <- arriving out;
//   4. acc <- acc + arriving activation * arriving weight, modulo 2^32, from 0 if swap arrives;
//   5. activation, weight, swap and drain take what arrived, and so travel on.
//
// acc and out are double buffering: the next sum grows in acc while finished ones go down through
// out. out_pass delays that chain by one cycle per row, so that sums going down keep step with the
// drain bits, which enter each row one cycle after the row above.

`default_nettype none

module output_pe #(
    parameter bit ACTIVATION_SIGNED = 1'b1,
    parameter bit WEIGHT_SIGNED     = 1'b1
) (
    input  wire         clk,
    input  wire         reset,
    // From the left: the PE in the column before, or the west port.
    input  wire  [7:0]  arriving_activation,
    input  wire         arriving_swap,
    input  wire         arriving_drain,
    // From above: the PE in the row before, or the north port.
    input  wire  [7:0]  arriving_weight,
    input  wire  [31:0] arriving_out,
    // To the right.
    output logic [7:0]  activation,
    output logic        swap,
    output logic        drain,
    // Down.
    output logic [7:0]  weight,
    output logic [31:0] out_pass,
    // Of the bottom row: to the memory below.
    output logic [31:0] out
);
    logic [31:0] acc;

    // 32 bits hold every product of 8-bit operands exactly, and in a sum modulo 2^32 an extended
    // operand is all that signedness means.
    wire [31:0] factor_a = {{24{ACTIVATION_SIGNED && arriving_activation[7]}}, arriving_activation};
    wire [31:0] factor_w = {{24{WEIGHT_SIGNED && arriving_weight[7]}}, arriving_weight};

    always_ff @(posedge clk) begin
        if (reset) begin
            activation <= 8'd0;
            weight     <= 8'd0;
            acc        <= 32'd0;
            out        <= 32'd0;
            out_pass   <= 32'd0;
            swap       <= 1'b0;
            drain      <= 1'b0;
        end else begin
            // The sum that a swap ends goes out as it was: the product of this edge is the next one's.
            acc <= (arriving_swap ? 32'd0 : acc) + factor_a * factor_w;
            if (arriving_swap) out <= acc;
            else if (arriving_drain) out <= arriving_out;
            if (arriving_drain) out_pass <= out;
            activation <= arriving_activation;
            weight     <= arriving_weight;
            swap       <= arriving_swap;
            drain      <= arriving_drain;
        end
    end
endmodule

`default_nettype wire
