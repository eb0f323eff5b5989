/** What the agent's core is told about its place in the world. */
import type { ServerIndex } from "../../protocol/record.js";
import type { AgentLimits } from "./limits.js";

export interface AgentConfig {
  /** This server's id, and its place in the configuration's list of two. */
  id: string;
  index: ServerIndex;
  /** The other server's id; the greater id dials the other's peer port. */
  peerId: string;
  /** The pair's key. */
  key: Uint8Array;
  /** This disk: 16 bytes that no copy and no restored backup of it has. */
  identity: Uint8Array;
  /** The store was empty or emptied when the agent started. */
  emptied: boolean;
  /** Announces itself when both servers were up before the controller (P13). */
  preset: boolean;
  /** "host:port" of the controller's client port, for the errors of the local port. */
  controllerAddress: string;
  /** Password of the local port; "" for none. */
  localPassword: string;
  /** Every other than default limit; see agentLimits. */
  limits: AgentLimits;
}
