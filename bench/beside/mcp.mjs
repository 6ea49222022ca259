// The class of the MCP memory server, called by lines of JSON: [method, argument] -> the result.
import { createInterface } from "node:readline";

const [server, file] = process.argv.slice(2);
const { KnowledgeGraphManager } = await import(server);
const manager = new KnowledgeGraphManager(file);
const lines = createInterface({ input: process.stdin });
for await (const line of lines) {
  const [method, argument] = JSON.parse(line);
  process.stdout.write(JSON.stringify((await manager[method](argument)) ?? null) + "\n");
}
process.exit(0);
